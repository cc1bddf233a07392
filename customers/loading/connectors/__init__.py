"""Connectors: one file per source of records."""
