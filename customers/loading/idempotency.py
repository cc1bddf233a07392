"""Idempotency keys: a client that repeats a write after a lost response gets the same response, without a second write.

The client gives each write a key of its own (header Idempotency-Key). Stored are only digests of the key and of the
request, and the response; after 48 hours a key can be used again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from customers.database import engine, shop_lock
from customers.database.schema import receipts
from customers.security import encryption
from customers.shop.errors import ShopError
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

RETENTION_PERIOD = timedelta(hours=48)


class IdempotencyKeyReused(ShopError):
    """The same Idempotency-Key was used for two different requests."""


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """The stored response to a request: HTTP status and body."""

    status: int
    answer: str


@contextmanager
def lock_key(shop: Shop, key: str) -> Iterator[None]:
    """Hold a lock on this key in this home; a second request with the same key waits for it.

    There are 256 lock files, so some keys share one.
    """
    folder = shop.home / "receipts"
    folder.mkdir(exist_ok=True)
    with shop_lock.hold_home(shop, f"{folder.name}/{_key_digest(shop, key)[0]:02x}"):
        yield


def begin_request(shop: Shop, key: str, route: str, request: bytes) -> IdempotencyRecord | None:
    """The stored response to this request, or None: then carry the request out and call `finish_request`.

    `key` is the client's key together with its identity; `route` is the path template, never a path with an id;
    `request` is path, query and body. A request that began without a response is carried out again: with `lock_key`
    held from here to `finish_request`, the server that began it is no longer running. Raises IdempotencyKeyReused where
    the key was used for another request.
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
    """Store the response to the request that began under this key; a response already stored is returned unchanged."""
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
