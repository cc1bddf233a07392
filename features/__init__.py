"""Features: what we know about a customer at a moment, worked out once and read by every model."""
