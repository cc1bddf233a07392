"""Loading of records: one file per record kind, with validation, rejects, connectors and idempotency."""
