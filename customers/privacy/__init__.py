"""Consent, erasure, anonymisation and data export."""
