"""Receipts: a till that asks again after a lost answer gets the same answer, and nothing is written twice.

The till names each write with a key of its own (the header Idempotency-Key). Kept are only digests of that
key and of what was asked, and the answer; after two days a key is as good as new.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def held(shop: Shop, key: str) -> Iterator[None]:
    """Nobody else in this home answers a request of this key meanwhile; of two at once, the second waits.

    The lock is a file's, so that it goes with a killed server. Some keys share one, lest there be a file for each.
    """
    folder = shop.home / "receipts"
    folder.mkdir(exist_ok=True)
    with (folder / f"{_digest(shop, key)[0]:02x}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def begin(shop: Shop, key: str, route: str, request: bytes) -> Receipt | None:
    """The answer that this request got before, or None: then do what it asks, and `finish`.

    `key` is the caller's own together with who they are; `route` is the template and never a path with an id;
    `request` all that was asked: path, query and body. A request that was begun and never answered is done again:
    with the key `held` from here to `finish`, that one's server is gone.
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
    mine = _digest(shop, key)
    with database.writing(shop) as connection:
        change = receipts.update().where(receipts.c.key == mine, receipts.c.status.is_(None))
        connection.execute(change.values(status=status, answer=answer))
        standing = connection.execute(receipts.select().where(receipts.c.key == mine)).first()
    return (_answered(standing) if standing else None) or Receipt(status, answer)


def _digests(shop: Shop, key: str, route: str, request: bytes) -> tuple[bytes, bytes]:
    return _digest(shop, key), vault.of(shop).stamp(route.encode() + b"\x00" + request)


def _digest(shop: Shop, key: str) -> bytes:
    return vault.of(shop).stamp(key.encode("utf-8", "surrogatepass"))


def _sweep_and_find(connection: sa.Connection, mine: bytes) -> sa.Row | None:
    old = micros(datetime.now(UTC) - KEPT)
    connection.execute(receipts.delete().where(receipts.c.made_at < old))
    return connection.execute(receipts.select().where(receipts.c.key == mine)).first()


def _answered(row: sa.Row) -> Receipt | None:
    return None if row.status is None else Receipt(row.status, row.answer)
