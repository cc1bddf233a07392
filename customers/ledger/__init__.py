"""The append-only record of sales and interactions, and how far it has been read."""
