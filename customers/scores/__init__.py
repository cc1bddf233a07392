"""The one inlet of scores, their format, and the log of promotions."""
