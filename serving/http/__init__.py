"""What every request passes: authentication, limits, errors, metrics."""
