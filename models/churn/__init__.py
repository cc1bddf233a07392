"""P(no purchase within the horizon): the model and its baselines."""
