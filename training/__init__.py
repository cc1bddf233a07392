"""Training: how a question about customers becomes a model that has earned the right to answer it."""
