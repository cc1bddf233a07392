"""Erases a customer (right to erasure, GDPR art. 17).

Erasure destroys the customer's encryption key and all rows under their ids; sales stay in the ledger without a
customer. The second half is `serving/privacy/erasure.py`, which deletes the features: each erasure is pending until
then.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from customers.database import change_counters, engine
from customers.database.schema import customers, erasures, identities, metadata
from customers.people import lookup
from customers.privacy import anonymisation, tombstones
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

#: Counters of the mirror's files about customers, besides the months.
CUSTOMER_COUNTERS = (change_counters.INTERACTIONS_COUNTER, change_counters.CONSENTS_COUNTER)
# Sales stay, without the customer; and the row about an erasure outlives the customer.
RETAINED_TABLES = ("transactions", "transactions_history", "erasures")

SourceId = tuple[str, str]


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """The result of an erasure: number of anonymised order lines, and of deleted rows per table."""

    erasure_id: int
    customer_key: int
    lines: int
    removed: dict[str, int]


def erase_customer(shop: Shop, customer_id: str) -> ErasureResult | None:
    """Erase a customer for good, which cannot be undone; None for an unknown id.

    It stays in `pending_erasures` until the floors above have followed.
    """
    key = lookup.find_keys(shop, [customer_id]).get(customer_id)
    if key is None:
        return None
    identity_ids = _load_identities(shop, key)
    # Before and after: an interrupted erasure can be repeated, and a load may have written rejects meanwhile.
    anonymisation.purge_rejects(shop, _written_ids(identity_ids))
    anonymisation.purge_exports(shop, _written_ids(identity_ids))
    with engine.write_transaction(shop) as connection:
        before = change_counters.read_counters(connection)
        result = _erase_rows(connection, shop, key)
        after = change_counters.read_counters(connection)
    anonymisation.purge_rejects(shop, _written_ids(identity_ids))
    anonymisation.purge_exports(shop, _written_ids(identity_ids))
    anonymisation.anonymise_mirror(shop, {key}, before, after)
    engine.purge_deleted(shop)
    return result


def pending_erasures(shop: Shop) -> list[tuple[int, int]]:
    """(erasure_id, customer_key) of erasures that the floors above have not followed yet, oldest first."""
    query = sa.select(erasures.c.erasure_id, erasures.c.customer_key).where(erasures.c.forgotten_at.is_(None))
    with engine.read_transaction(shop) as connection:
        return [(erasure_id, key) for erasure_id, key in connection.execute(query.order_by(erasures.c.erasure_id))]


def complete_erasures(shop: Shop, erasure_ids: Iterable[int]) -> None:
    """Mark these erasures as followed by the floors above."""
    numbers = set(erasure_ids)
    keys = {key for erasure_id, key in pending_erasures(shop) if erasure_id in numbers}
    if keys:
        # `erase_customer` has done this already, except where it was interrupted.
        anonymisation.anonymise_mirror(shop, keys)
        engine.purge_deleted(shop)
        change = erasures.update().where(erasures.c.erasure_id.in_(numbers), erasures.c.forgotten_at.is_(None))
        with engine.write_transaction(shop) as connection:
            connection.execute(change.values(forgotten_at=to_micros(datetime.now(UTC))))


def _load_identities(shop: Shop, key: int) -> list[SourceId]:
    with engine.read_transaction(shop) as connection:
        return _select_identities(connection, key)


def _select_identities(connection: sa.Connection, key: int) -> list[SourceId]:
    query = sa.select(identities.c.source, identities.c.customer_id).where(identities.c.customer_key == key)
    return [(source, customer_id) for source, customer_id in connection.execute(query)]


def _written_ids(identity_ids: Sequence[SourceId]) -> set[str]:
    return {customer_id for _, customer_id in identity_ids} | {
        f"{source}:{customer_id}" for source, customer_id in identity_ids
    }


def _erase_rows(connection: sa.Connection, shop: Shop, key: int) -> ErasureResult | None:
    erased_at = to_micros(datetime.now(UTC))
    identity_ids = _select_identities(connection, key)
    if not identity_ids:  # another process has just erased the customer
        return None
    tombstones.add_tombstones(connection, shop, identity_ids, erased_at)
    _clear_referrals(connection, identity_ids)
    lines, months = anonymisation.anonymise_ledger(connection, key)
    change_counters.increment_counters(connection, {*months, *CUSTOMER_COUNTERS})
    removed = _delete_rows(connection, key)
    statement = erasures.insert().values(customer_key=key, erased_at=erased_at)
    primary_key = connection.execute(statement).inserted_primary_key
    assert primary_key is not None
    return ErasureResult(int(primary_key[0]), key, lines, removed)


def _clear_referrals(connection: sa.Connection, identity_ids: Sequence[SourceId]) -> None:
    """Clear the referrer of customers whom this one referred; a plain id is of the same source."""
    for source, customer_id in identity_ids:
        same_source = sa.select(identities.c.customer_key).where(identities.c.source == source)
        is_bare_id = (customers.c.referred_by == customer_id) & customers.c.customer_key.in_(same_source)
        is_prefixed_id = customers.c.referred_by == f"{source}:{customer_id}"
        connection.execute(customers.update().where(is_bare_id | is_prefixed_id).values(referred_by=None))


def _delete_rows(connection: sa.Connection, key: int) -> dict[str, int]:
    """Delete the customer from every table with a customer_key, so also from tables added later."""
    removed = {}
    for table in reversed(metadata.sorted_tables):
        if "customer_key" in table.c and table.name not in RETAINED_TABLES:
            removed[table.name] = connection.execute(table.delete().where(table.c.customer_key == key)).rowcount
    return removed
