"""Pipelines: the operations of a shop, from loading records to the nightly run and its scores."""
