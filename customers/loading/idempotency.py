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

from customers.database import engine
from customers.database.schema import receipts
from customers.security import encryption
from customers.shop.errors import ShopError
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

RETENTION_PERIOD = timedelta(hours=48)


class IdempotencyKeyReused(ShopError):
    """One key for two different requests."""


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """What was answered to a request."""

    status: int
    answer: str


@contextmanager
def lock_key(shop: Shop, key: str) -> Iterator[None]:
    """Nobody else in this home answers a request of this key meanwhile; of two at once, the second waits.

    The lock is a file's, so that it goes with a killed server. Some keys share one, lest there be a file for each.
    """
    folder = shop.home / "receipts"
    folder.mkdir(exist_ok=True)
    with (folder / f"{_key_digest(shop, key)[0]:02x}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def begin_request(shop: Shop, key: str, route: str, request: bytes) -> IdempotencyRecord | None:
    """The answer that this request got before, or None: then do what it asks, and `finish`.

    `key` is the caller's own together with who they are; `route` is the template and never a path with an id;
    `request` all that was asked: path, query and body. A request that was begun and never answered is done again:
    with the key `held` from here to `finish`, that one's server is gone.
    """
    key_digest, request_digest = _request_digests(shop, key, route, request)
    with engine.write_transaction(shop) as connection:
        stored = _expire_and_select(connection, key_digest)
        if stored is None:
            statement = receipts.insert().values(
                key=key_digest, route=route, request=request_digest, made_at=to_micros(datetime.now(UTC))
            )
            connection.execute(statement)
            return None
    if bytes(stored.request) != request_digest:
        raise IdempotencyKeyReused(
            "this Idempotency-Key was used for another request; give each request a key of its own"
        )
    return _to_record(stored)


def finish_request(shop: Shop, key: str, status: int, answer: str) -> IdempotencyRecord:
    """Keep the answer to what was begun under this key; where there is one already, that one stands."""
    key_digest = _key_digest(shop, key)
    with engine.write_transaction(shop) as connection:
        change = receipts.update().where(receipts.c.key == key_digest, receipts.c.status.is_(None))
        connection.execute(change.values(status=status, answer=answer))
        row = connection.execute(receipts.select().where(receipts.c.key == key_digest)).first()
    return (_to_record(row) if row else None) or IdempotencyRecord(status, answer)


def _request_digests(shop: Shop, key: str, route: str, request: bytes) -> tuple[bytes, bytes]:
    return _key_digest(shop, key), encryption.get_cipher(shop).content_digest(route.encode() + b"\x00" + request)


def _key_digest(shop: Shop, key: str) -> bytes:
    return encryption.get_cipher(shop).content_digest(key.encode("utf-8", "surrogatepass"))


def _expire_and_select(connection: sa.Connection, key_digest: bytes) -> sa.Row | None:
    expired_before = to_micros(datetime.now(UTC) - RETENTION_PERIOD)
    connection.execute(receipts.delete().where(receipts.c.made_at < expired_before))
    return connection.execute(receipts.select().where(receipts.c.key == key_digest)).first()


def _to_record(row: sa.Row) -> IdempotencyRecord | None:
    return None if row.status is None else IdempotencyRecord(row.status, row.answer)
