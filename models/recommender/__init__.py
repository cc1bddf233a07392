"""Ranked lists of products: candidates, ranking, baselines."""
