"""Tombstones: keyed digests of the ids of erased customers, the only trace that stays of those ids.

They keep a reload of old files from bringing a customer back: a sale with such an id is stored without a customer, and
any other record with it is rejected.
"""

from collections.abc import Collection, Iterable, Mapping

import sqlalchemy as sa

from customers.database import engine
from customers.database.schema import erased, erasures, identities
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


def load_tombstones(shop: Shop) -> dict[bytes, int]:
    """All digests with the time of their erasure, in microseconds since 1970. Nobody can be named by them."""
    with engine.read_transaction(shop) as connection:
        rows = connection.execute(sa.select(erased.c.token, erased.c.erased_at).order_by(erased.c.erased_at)).all()
    return {bytes(token): erased_at for token, erased_at in rows}


def restore_tombstones(shop: Shop, erased_at_by_digest: Mapping[bytes, int]) -> int:
    """Add the digests that are not there, as `load_tombstones` of a newer database returns them; their number."""
    with engine.write_transaction(shop) as connection:
        existing = set(_existing_digests(connection, list(erased_at_by_digest)))
        missing = [(digest, at) for digest, at in erased_at_by_digest.items() if digest not in existing]
        engine.insert_many(connection, erased, ["token", "erased_at"], missing)
    return len(missing)


def customers_with_tombstones(shop: Shop, digests: Collection[bytes]) -> list[str]:
    """Ids, written `source:id`, of customers whose tombstone is among these digests, one for each customer."""
    cipher = encryption.get_cipher(shop)
    query = sa.select(identities.c.customer_key, identities.c.source, identities.c.customer_id)
    with engine.read_transaction(shop) as connection:
        rows = connection.execute(query.order_by(identities.c.customer_key)).all()
    ids_by_key = {
        row.customer_key: f"{row.source}:{row.customer_id}"
        for row in rows
        if cipher.tombstone_digest(row.source, row.customer_id) in digests
    }
    return list(ids_by_key.values())


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
