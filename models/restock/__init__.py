"""Replenishment of categories and the demand forecast."""
