"""Encryption of personal data, and API keys."""
