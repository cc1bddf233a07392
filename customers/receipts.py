"""Receipts: a till that asks again after a lost answer gets the same answer, and nothing is written twice.

The till names each write with a key of its own (the header Idempotency-Key). Kept are only digests of that
key and of what was asked, and the answer; after two days a key is as good as new.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from customers import database, vault
from customers.instants import micros
from customers.schema import receipts
from customers.shop import Shop, ShopError

KEPT = timedelta(hours=48)


class Reused(ShopError):
    """One key for two different requests."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was answered to a request."""

    status: int
    answer: str


def begin(shop: Shop, key: str, route: str, request: bytes) -> Receipt | None:
    """The answer that this request got before, or None: then do what it asks, and `finish`.

    `key` is the caller's own together with who they are; `route` is the template and never a path with an id;
    `request` all that was asked: path, query and body. A request that was begun and never answered is done again.
    """
    mine, stamp = _digests(shop, key, route, request)
    with database.writing(shop) as connection:
        known = _sweep_and_find(connection, mine)
        if known is None:
            fresh = receipts.insert().values(key=mine, route=route, request=stamp, made_at=micros(datetime.now(UTC)))
            connection.execute(fresh)
            return None
    if bytes(known.request) != stamp:
        raise Reused("this Idempotency-Key was used for another request; give each request a key of its own")
    return _answered(known)


def finish(shop: Shop, key: str, status: int, answer: str) -> Receipt:
    """Keep the answer to what was begun under this key; where there is one already, that one stands."""
    mine = vault.of(shop).stamp(key.encode("utf-8", "surrogatepass"))
    with database.writing(shop) as connection:
        change = receipts.update().where(receipts.c.key == mine, receipts.c.status.is_(None))
        connection.execute(change.values(status=status, answer=answer))
        standing = connection.execute(receipts.select().where(receipts.c.key == mine)).first()
    return (_answered(standing) if standing else None) or Receipt(status, answer)


def _digests(shop: Shop, key: str, route: str, request: bytes) -> tuple[bytes, bytes]:
    safe = vault.of(shop)
    return safe.stamp(key.encode("utf-8", "surrogatepass")), safe.stamp(route.encode() + b"\x00" + request)


def _sweep_and_find(connection: sa.Connection, mine: bytes) -> sa.Row | None:
    old = micros(datetime.now(UTC) - KEPT)
    connection.execute(receipts.delete().where(receipts.c.made_at < old))
    return connection.execute(receipts.select().where(receipts.c.key == mine)).first()


def _answered(row: sa.Row) -> Receipt | None:
    return None if row.status is None else Receipt(row.status, row.answer)
