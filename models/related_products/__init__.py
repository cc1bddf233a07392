"""Complements, substitutes and up-sells of a product."""
