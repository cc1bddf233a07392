"""Families of features, each declared to Feast."""
