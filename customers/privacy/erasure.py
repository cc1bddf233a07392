"""Privacy: what the shop holds of a person, shown to them whole, and forgotten when they ask.

To forget is to destroy the person's key and everything under their ids; what they bought stays in the books
as nobody's. Floors above keep figures of their own: each erasure is announced until they say it is done.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from customers import (
    anonymity,
    database,
    disclosure,
    enrolment,
    ids,
    interactions,
    profiles,
    tombstones,
    transactions,
)
from customers.database import metadata
from customers.instants import micros
from customers.schema import customers, erasures, identities
from customers.shop import Shop

#: Marks of the mirror's files about customers that are not months.
BESIDE_THE_LEDGER = (interactions.MIRROR_MARK, enrolment.MIRROR_MARK)
# Sales stay, as nobody's; and the announcement outlives whom it is about.
STAYING = ("transactions", "transactions_history", "erasures")

Named = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Erased:
    """What became of an erased customer: lines now nobody's, and rows of each table that are gone."""

    erasure_id: int
    customer_key: int
    lines: int
    removed: dict[str, int]


def export(shop: Shop, customer_id: str) -> dict[str, Any] | None:
    """Everything that the shop holds of a person, as JSON holds it; None for an id that it does not know."""
    with database.reading(shop) as connection:
        key = ids.keys(connection, identities, [customer_id], "customer").get(customer_id)
        return None if key is None else disclosure.of(connection, shop, key)


def erase(shop: Shop, customer_id: str) -> Erased | None:
    """Forget a customer for good; None for an id that the shop does not know. Nothing can undo this.

    Announced to the floors above, see `unforgotten`.
    """
    key = profiles.keys_of(shop, [customer_id]).get(customer_id)
    if key is None:
        return None
    named = _named(shop, key)
    # Before and after: if this is cut short it can be asked for again, and a load may have gone on meanwhile.
    anonymity.of_rejects(shop, _as_written(named))
    anonymity.of_exports(shop, _as_written(named))
    with database.writing(shop) as connection:
        before = anonymity.settled(connection)
        erased = _erase(connection, shop, key)
        true_but_for_us = {
            month: number + 1 for month, number in (before.items() - anonymity.settled(connection).items())
        }
    anonymity.of_rejects(shop, _as_written(named))
    anonymity.of_exports(shop, _as_written(named))
    anonymity.of_mirror(shop, {key}, true_but_for_us)
    database.wipe(shop)
    return erased


def unforgotten(shop: Shop) -> list[tuple[int, int]]:
    """Erasures that the floors above have not followed yet: (erasure_id, customer_key), the oldest first."""
    query = sa.select(erasures.c.erasure_id, erasures.c.customer_key).where(erasures.c.forgotten_at.is_(None))
    with database.reading(shop) as connection:
        return [(erasure_id, key) for erasure_id, key in connection.execute(query.order_by(erasures.c.erasure_id))]


def forgotten(shop: Shop, erasure_ids: Iterable[int]) -> None:
    """The floors above have followed these erasures."""
    numbers = set(erasure_ids)
    keys = {key for erasure_id, key in unforgotten(shop) if erasure_id in numbers}
    if keys:
        # Done before where `erase` came to its end; where it was cut short, now.
        anonymity.of_mirror(shop, keys)
        database.wipe(shop)
        change = erasures.update().where(erasures.c.erasure_id.in_(numbers), erasures.c.forgotten_at.is_(None))
        with database.writing(shop) as connection:
            connection.execute(change.values(forgotten_at=micros(datetime.now(UTC))))


def _named(shop: Shop, key: int) -> list[Named]:
    with database.reading(shop) as connection:
        return _identities(connection, key)


def _identities(connection: sa.Connection, key: int) -> list[Named]:
    query = sa.select(identities.c.source, identities.c.customer_id).where(identities.c.customer_key == key)
    return [(source, customer_id) for source, customer_id in connection.execute(query)]


def _as_written(named: Sequence[Named]) -> set[str]:
    return {customer_id for _, customer_id in named} | {f"{source}:{customer_id}" for source, customer_id in named}


def _erase(connection: sa.Connection, shop: Shop, key: int) -> Erased | None:
    erased_at = micros(datetime.now(UTC))
    named = _identities(connection, key)
    if not named:  # somebody else has just erased them
        return None
    tombstones.put(connection, shop, named, erased_at)
    _unname(connection, named)
    lines, months = anonymity.of_ledger(connection, key)
    transactions.mark(connection, {*months, *BESIDE_THE_LEDGER})
    removed = _remove(connection, key)
    said = erasures.insert().values(customer_key=key, erased_at=erased_at)
    number = connection.execute(said).inserted_primary_key
    assert number is not None
    return Erased(int(number[0]), key, lines, removed)


def _unname(connection: sa.Connection, named: Sequence[Named]) -> None:
    """Whoever was brought by this customer was brought by nobody known; a plain id is of the same source."""
    for source, customer_id in named:
        same = sa.select(identities.c.customer_key).where(identities.c.source == source)
        plain = (customers.c.referred_by == customer_id) & customers.c.customer_key.in_(same)
        prefixed = customers.c.referred_by == f"{source}:{customer_id}"
        connection.execute(customers.update().where(plain | prefixed).values(referred_by=None))


def _remove(connection: sa.Connection, key: int) -> dict[str, int]:
    """Whatever table speaks of a customer, also one that is added later, loses this one."""
    removed = {}
    for table in reversed(metadata.sorted_tables):
        if "customer_key" in table.c and table.name not in STAYING:
            removed[table.name] = connection.execute(table.delete().where(table.c.customer_key == key)).rowcount
    return removed
