"""HTTP endpoints: one customer, lists of customers, records, privacy, and the answers of the bulk endpoints."""
