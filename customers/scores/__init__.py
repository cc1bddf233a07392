"""Stored scores, the format of their details, and the log of promotions."""
