"""Freshness: the customers whose features lag behind what the shop has just learned of them.

They are noted in the transaction that brought the news, so that nobody is forgotten by a crash, and
struck off once their features and scores have caught up.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import sqlalchemy as sa

from customers.database import engine
from customers.database.schema import unrefreshed
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

# Later news always has a later number, also within one microsecond.
ENQUEUE = sa.text(
    """insert into unrefreshed (customer_key, since) values (:customer_key, :since)
       on conflict (customer_key) do update set since =
         case when excluded.since > unrefreshed.since then excluded.since else unrefreshed.since + 1 end"""
)
DEQUEUE = sa.text("delete from unrefreshed where customer_key = :customer_key and since = :since")


def enqueue(connection: sa.Connection, keys: Iterable[int]) -> None:
    """Note, in the transaction that brings the news, that something is new about these customers."""
    since = to_micros(datetime.now(UTC))
    rows = [{"customer_key": key, "since": since} for key in sorted(keys)]
    if rows:
        connection.execute(ENQUEUE, rows)


def enqueue_customers(shop: Shop, keys: Iterable[int]) -> None:
    """Note that these customers have to be seen to, though nothing is new in the books about them."""
    with engine.write_transaction(shop) as connection:
        enqueue(connection, keys)


def list_pending(shop: Shop) -> dict[int, int]:
    """Everybody whose features lag, and since when; hand back to `caught_up` those that were seen to."""
    with engine.read_transaction(shop) as connection:
        return dict(connection.execute(sa.select(unrefreshed).order_by(unrefreshed.c.since)).tuples().all())


def mark_refreshed(shop: Shop, refreshed: Mapping[int, int]) -> None:
    """Strike off those who were seen to; one of whom there is later news than was seen stays on the list."""
    if refreshed:
        with engine.write_transaction(shop) as connection:
            connection.execute(DEQUEUE, [{"customer_key": key, "since": since} for key, since in refreshed.items()])
