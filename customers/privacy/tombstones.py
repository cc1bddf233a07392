"""Tombstones: keyed digests of the ids of erased customers, the only trace that stays of those ids.

They keep a reload of old files from bringing a customer back: a sale with such an id is stored without a customer, and
any other record with it is rejected.
"""

from collections.abc import Iterable

import sqlalchemy as sa

from customers.database import engine
from customers.database.schema import erased, erasures
from customers.security import encryption
from customers.shop.settings import Shop

# Above this many ids, reading all tombstones is faster than selecting each.
FULL_SCAN_ABOVE = 5_000


def erased_ids(connection: sa.Connection, shop: Shop, source: str, customer_ids: Iterable[str]) -> set[str]:
    """The ids among these ids of a source whose customers were erased."""
    if connection.execute(sa.select(erased.c.token).limit(1)).first() is None:
        return set()
    cipher = encryption.get_cipher(shop)
    ids_by_digest = {cipher.tombstone_digest(source, customer_id): customer_id for customer_id in customer_ids}
    return {
        ids_by_digest[digest]
        for digest in _existing_digests(connection, list(ids_by_digest))
        if digest in ids_by_digest
    }


def add_tombstones(
    connection: sa.Connection, shop: Shop, identity_ids: Iterable[tuple[str, str]], erased_at: int
) -> None:
    """Add tombstones for these (source, customer_id), so that no load creates them again."""
    cipher = encryption.get_cipher(shop)
    digests = {cipher.tombstone_digest(source, customer_id) for source, customer_id in identity_ids}
    new_digests = sorted(digests - set(_existing_digests(connection, list(digests))))
    engine.insert_many(connection, erased, ["token", "erased_at"], ((digest, erased_at) for digest in new_digests))


def latest_erasure_id(connection: sa.Connection) -> int:
    """The id of the latest erasure, 0 before the first; ids rise."""
    return connection.execute(sa.select(sa.func.max(erasures.c.erasure_id))).scalar() or 0


def keys_erased_since(connection: sa.Connection, erasure_id: int) -> set[int]:
    """Keys of the customers erased after this erasure."""
    later = sa.select(erasures.c.customer_key).where(erasures.c.erasure_id > erasure_id)
    return set(connection.execute(later).scalars())


def _existing_digests(connection: sa.Connection, digests: list[bytes]) -> Iterable[bytes]:
    query = sa.select(erased.c.token)
    if len(digests) > FULL_SCAN_ABOVE:
        yield from map(bytes, connection.execute(query).scalars())
        return
    for chunk in engine.chunks(digests, 500):
        yield from map(bytes, connection.execute(query.where(erased.c.token.in_(chunk))).scalars())
