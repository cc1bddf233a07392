"""Consents, erasure, anonymisation and export of personal data."""
