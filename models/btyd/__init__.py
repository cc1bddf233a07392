"""Buy-till-you-die models: BG/NBD and its family."""
