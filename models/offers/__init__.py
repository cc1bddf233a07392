"""P(redemption) of an offer: the model and its baseline."""
