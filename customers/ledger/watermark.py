"""Nights: up to which moment a night has already looked, so that what arrives later never changes it."""

from datetime import UTC, datetime

import sqlalchemy as sa

from customers import database
from customers.instants import maybe, micros
from customers.schema import nights
from customers.shop import Shop


def began(shop: Shop, as_of: datetime) -> None:
    """A night begins that looks at everything before `as_of`. Say so before reading anything."""
    with database.writing(shop) as connection:
        connection.execute(nights.insert().values(as_of=micros(as_of), began_at=micros(datetime.now(UTC))))


def last_looked(shop: Shop) -> datetime | None:
    """The latest moment that any night has looked at."""
    with database.reading(shop) as connection:
        return maybe(last_looked_micros(connection))


def last_looked_micros(connection: sa.Connection) -> int | None:
    """As `last_looked`, inside a transaction of the caller."""
    return connection.execute(sa.select(sa.func.max(nights.c.as_of))).scalar()
