"""The stored values of the Redis online store, for a shop with several servers."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import mmh3
from google.protobuf.timestamp_pb2 import Timestamp
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from features.store import value_codec
from features.store.online_values import OnlineValues, StoredRow

#: Compares and writes in one step, so that no other writer comes in between. ARGV are alternating fields and values,
#: the first of them the time in microseconds, which a double holds exactly.
WRITE_SCRIPT = """
local stored = redis.call('hget', KEYS[1], ARGV[1])
if stored and tonumber(stored) > tonumber(ARGV[2]) then return 0 end
redis.call('hset', KEYS[1], unpack(ARGV))
return 1
"""
ROWS_PER_BATCH = 1_000


class RedisValues(OnlineValues):
    """The values in Redis: a hash for each customer, with the fields of all views."""

    outages = (RedisConnectionError, RedisTimeoutError)

    def __init__(self, address: str) -> None:
        self._client = open_client(address)

    def read(self, view: str, keys: Sequence[int], features: Sequence[str]) -> dict[int, StoredRow]:
        """The stored rows of these customers by key; one who is not in the store is left out."""
        fields = [f"_ts:{view}".encode(), *(feature_field(view, feature) for feature in features)]
        rows: dict[int, StoredRow] = {}
        for start in range(0, len(keys), ROWS_PER_BATCH):
            batch = keys[start : start + ROWS_PER_BATCH]
            with self._client.pipeline(transaction=False) as pipe:
                for key in batch:
                    pipe.hmget(redis_key(value_codec.entity_key(key)), fields)
                answers = pipe.execute()
            for key, (time, *values) in zip(batch, answers, strict=True):
                if time is not None:
                    stored = {name: value for name, value in zip(features, values, strict=True) if value is not None}
                    rows[key] = StoredRow(Timestamp.FromString(time).ToMicroseconds(), stored)
        return rows

    def write(self, view: str, rows: Iterable[tuple[int, StoredRow]]) -> None:
        """Write each customer's row unless the stored one is newer; equal times are written."""
        write_hashes(
            self._client,
            [
                (redis_key(value_codec.entity_key(key)), hash_fields(view, row.event_us, row.values))
                for key, row in rows
            ],
        )

    def delete(self, views: Collection[str], keys: Sequence[int]) -> None:
        """Delete every stored value of these customers; all views of a customer are under one key."""
        delete_hashes(self._client, [redis_key(value_codec.entity_key(key)) for key in keys])


def open_client(address: str) -> Redis:
    """A client of the server at this address; its connections are made when they are needed."""
    return Redis.from_url(address, socket_connect_timeout=5, socket_timeout=30, health_check_interval=30)


def redis_key(entity: bytes, project: str = value_codec.PROJECT) -> bytes:
    """The key of a customer's hash."""
    return entity + project.encode()


def feature_field(view: str, feature: str) -> bytes:
    """Feast's field of a feature: the murmur3 hash of its name, little-endian."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def hash_fields(view: str, event_us: int, values: dict[str, bytes]) -> list[str | bytes | int]:
    """Alternating fields and values of one row, its time first."""
    time = Timestamp()
    time.FromMicroseconds(event_us)
    fields: list[str | bytes | int] = [f"_us:{view}", event_us, f"_ts:{view}", time.SerializeToString()]
    for feature, value in values.items():
        fields += [feature_field(view, feature), value]
    return fields


def write_hashes(client: Any, hashes: Sequence[tuple[bytes, list[str | bytes | int]]]) -> None:
    """Write rows, each a key and the fields of `hash_fields`, unless the stored one is newer."""
    write = client.register_script(WRITE_SCRIPT)
    for start in range(0, len(hashes), ROWS_PER_BATCH):
        with client.pipeline(transaction=False) as pipe:
            for key, fields in hashes[start : start + ROWS_PER_BATCH]:
                write(keys=[key], args=fields, client=pipe)
            pipe.execute()


def delete_hashes(client: Any, keys: Sequence[bytes]) -> None:
    """Delete the hashes under these keys."""
    for start in range(0, len(keys), ROWS_PER_BATCH):
        client.delete(*keys[start : start + ROWS_PER_BATCH])
