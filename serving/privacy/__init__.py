"""Erasure and data export, including the features and scores of a customer."""
