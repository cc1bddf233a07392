"""Features: what is known about a customer as of a cutoff, computed once and read by every model."""
