"""Transactions: what was bought and returned, an append-only ledger with every version of every line."""
from datetime import UTC, datetime, timedelta
from customers import database
def last_sold_at(shop):
    return None
