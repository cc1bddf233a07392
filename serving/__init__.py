"""Serving: what a shop may ask about its customers, and how it is answered."""
