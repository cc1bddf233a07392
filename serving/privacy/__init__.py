"""Erasure and data export followed through features and scores."""
