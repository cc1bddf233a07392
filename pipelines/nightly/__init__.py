"""The nightly run: features, training, promotion, scores."""
