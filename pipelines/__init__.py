"""Pipelines: a day in the shop, from the first sale loaded to the last score written back."""
