"""Loading records: one file a record kind, with validation and rejects."""
