"""The uplift command: what past campaigns changed."""
