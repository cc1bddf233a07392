"""Expected spend within the horizon: the model and its baselines."""
