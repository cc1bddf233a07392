"""Metrics, intervals and comparisons on hold-out data."""
