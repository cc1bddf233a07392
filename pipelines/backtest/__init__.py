"""Past cutoffs: what would have been predicted, and what happened."""
