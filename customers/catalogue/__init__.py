"""Products and their attributes."""
