"""Reasons of a churn score: the rules that select them and their text."""
