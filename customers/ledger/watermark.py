"""Nights: up to which moment a night has already looked, so that what arrives later never changes it."""

from datetime import UTC, datetime

import sqlalchemy as sa

from customers.database import engine
from customers.database.schema import nights
from customers.shop.settings import Shop
from customers.shop.timestamps import from_micros_or_none, to_micros


def record_run_start(shop: Shop, as_of: datetime) -> None:
    """A night begins that looks at everything before `as_of`. Say so before reading anything."""
    with engine.write_transaction(shop) as connection:
        connection.execute(nights.insert().values(as_of=to_micros(as_of), began_at=to_micros(datetime.now(UTC))))


def read_watermark(shop: Shop) -> datetime | None:
    """The latest moment that any night has looked at."""
    with engine.read_transaction(shop) as connection:
        return from_micros_or_none(read_watermark_micros(connection))


def read_watermark_micros(connection: sa.Connection) -> int | None:
    """As `last_looked`, inside a transaction of the caller."""
    return connection.execute(sa.select(sa.func.max(nights.c.as_of))).scalar()
