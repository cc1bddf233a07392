"""Audiences: the customers most likely to buy given products or to redeem an offer."""
