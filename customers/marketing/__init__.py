"""Offers, who is eligible for them, and how often a customer may be contacted."""
