"""Freshness: the customers whose features lag behind what the shop has just learned of them.

They are noted in the transaction that brought the news, so that nobody is forgotten by a crash, and
struck off once their features and scores have caught up.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import sqlalchemy as sa

from customers import database
from customers.instants import micros
from customers.schema import unrefreshed
from customers.shop import Shop

# Later news always has a later number, also within one microsecond.
NOTE = sa.text(
    """insert into unrefreshed (customer_key, since) values (:customer_key, :since)
       on conflict (customer_key) do update set since =
         case when excluded.since > unrefreshed.since then excluded.since else unrefreshed.since + 1 end"""
)
STRIKE = sa.text("delete from unrefreshed where customer_key = :customer_key and since = :since")


def fall_behind(connection: sa.Connection, keys: Iterable[int]) -> None:
    """Note, in the transaction that brings the news, that something is new about these customers."""
    since = micros(datetime.now(UTC))
    rows = [{"customer_key": key, "since": since} for key in sorted(keys)]
    if rows:
        connection.execute(NOTE, rows)


def note(shop: Shop, keys: Iterable[int]) -> None:
    """Note that these customers have to be seen to, though nothing is new in the books about them."""
    with database.writing(shop) as connection:
        fall_behind(connection, keys)


def lagging(shop: Shop) -> dict[int, int]:
    """Everybody whose features lag, and since when; hand back to `caught_up` those that were seen to."""
    with database.reading(shop) as connection:
        return dict(connection.execute(sa.select(unrefreshed).order_by(unrefreshed.c.since)).tuples().all())


def caught_up(shop: Shop, seen: Mapping[int, int]) -> None:
    """Strike off those who were seen to; one of whom there is later news than was seen stays on the list."""
    if seen:
        with database.writing(shop) as connection:
            connection.execute(STRIKE, [{"customer_key": key, "since": since} for key, since in seen.items()])
