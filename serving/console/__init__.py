"""The pages of the retention desk: who is slipping away, and one customer on one page."""
