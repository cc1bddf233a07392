"""Complements, substitutes and similar products."""
