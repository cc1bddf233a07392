"""The watermark: the latest cutoff up to which a nightly run has read the ledger.

Records that arrive later get a later known_at, so that they never change the result of that run.
"""

from datetime import UTC, datetime

import sqlalchemy as sa

from customers.database import engine
from customers.database.schema import nights
from customers.shop.settings import Shop
from customers.shop.timestamps import from_micros_or_none, to_micros


def record_run_start(shop: Shop, as_of: datetime) -> None:
    """Record that a nightly run starts which reads everything before `as_of`; call it before reading anything."""
    with engine.write_transaction(shop) as connection:
        connection.execute(nights.insert().values(as_of=to_micros(as_of), began_at=to_micros(datetime.now(UTC))))


def read_watermark(shop: Shop) -> datetime | None:
    """The latest `as_of` of any nightly run; None before the first."""
    with engine.read_transaction(shop) as connection:
        return from_micros_or_none(read_watermark_micros(connection))


def read_watermark_micros(connection: sa.Connection) -> int | None:
    """As `read_watermark`, in microseconds since 1970, inside a transaction of the caller."""
    return connection.execute(sa.select(sa.func.max(nights.c.as_of))).scalar()
