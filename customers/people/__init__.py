"""Finds customers, and reads the preferences that they have stated."""
