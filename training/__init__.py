"""Training: tasks, labels, fitting, evaluation and promotion of models."""
