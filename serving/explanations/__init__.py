"""Reason codes of a churn score and their text."""
