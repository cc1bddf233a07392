"""The Parquet copy of the ledger that analytics reads."""
