"""One file a task: label, rows, metrics."""
