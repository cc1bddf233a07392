"""Finding customers, and what they like."""
