"""The append-only ledger of sales, interactions, the watermark of nightly runs and the refresh queue."""
