"""Time to the next purchase: the model and its baselines."""
