"""Queue of customers whose features and scores are older than the latest records about them.

A customer is added in the transaction that writes the new record, so that a crash loses none, and removed once the
features and scores have been refreshed.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import sqlalchemy as sa

from customers.database import engine
from customers.database.schema import unrefreshed
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

# A later record always gets a larger number, also within one microsecond.
ENQUEUE = sa.text(
    """insert into unrefreshed (customer_key, since) values (:customer_key, :since)
       on conflict (customer_key) do update set since =
         case when excluded.since > unrefreshed.since then excluded.since else unrefreshed.since + 1 end"""
)
DEQUEUE = sa.text("delete from unrefreshed where customer_key = :customer_key and since = :since")


def enqueue(connection: sa.Connection, keys: Iterable[int]) -> None:
    """Add these customers to the queue, in the transaction that writes the new records about them."""
    since = to_micros(datetime.now(UTC))
    rows = [{"customer_key": key, "since": since} for key in sorted(keys)]
    if rows:
        connection.execute(ENQUEUE, rows)


def enqueue_customers(shop: Shop, keys: Iterable[int]) -> None:
    """Add these customers to the queue in a transaction of its own, without a new record about them."""
    with engine.write_transaction(shop) as connection:
        enqueue(connection, keys)


def list_pending(shop: Shop) -> dict[int, int]:
    """The queued customer keys, oldest first, each with its `since` number.

    Pass those that were refreshed to `mark_refreshed`, with these numbers.
    """
    with engine.read_transaction(shop) as connection:
        return dict(connection.execute(sa.select(unrefreshed).order_by(unrefreshed.c.since)).tuples().all())


def count_pending(shop: Shop) -> int:
    """The number of queued customers."""
    with engine.read_transaction(shop) as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(unrefreshed)).scalar_one()


def oldest_pending(shop: Shop) -> int | None:
    """When the longest queued customer was added, in microseconds since 1970; None where the queue is empty."""
    with engine.read_transaction(shop) as connection:
        return connection.execute(sa.select(sa.func.min(unrefreshed.c.since))).scalar()


def mark_refreshed(shop: Shop, refreshed: Mapping[int, int]) -> None:
    """Remove refreshed customers (key to `since`) from the queue; one with a later record meanwhile stays queued."""
    if refreshed:
        with engine.write_transaction(shop) as connection:
            connection.execute(DEQUEUE, [{"customer_key": key, "since": since} for key, since in refreshed.items()])
