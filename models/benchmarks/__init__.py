"""Published and plain methods, measured beside the models and never served."""
