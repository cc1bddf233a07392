"""Published methods and simple models that are measured beside the models and never served."""
