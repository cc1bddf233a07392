"""The stored values of the online stores, by customer and view: read, written and deleted without importing Feast.

The tables and keys are those of Feast, whose own stores in this folder write through the same statements.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

#: Kinds of online stores, by the scheme of their addresses.
SCHEMES = {
    **dict.fromkeys(("redis", "rediss"), "redis"),
    **dict.fromkeys(("postgresql", "postgresql+psycopg"), "postgres"),
}


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One customer's values of a view: `values` are Feast's messages by feature, `event_us` microseconds since 1970."""

    event_us: int
    values: dict[str, bytes]


class OnlineValues(ABC):
    """The values of one online store; safe to use from several threads."""

    @abstractmethod
    def read(self, view: str, keys: Sequence[int], features: Sequence[str]) -> dict[int, StoredRow]:
        """The stored rows of these customers by key; one who is not in the store is left out."""

    @abstractmethod
    def write(self, view: str, rows: Iterable[tuple[int, StoredRow]]) -> None:
        """Write each customer's row unless the stored one is newer; equal times are written."""

    @abstractmethod
    def delete(self, views: Collection[str], keys: Sequence[int]) -> None:
        """Delete every value of these customers in these views."""


def check_address(address: str) -> str:
    """The kind of online store at an address: "redis" or "postgres". Raises ValueError for any other address."""
    parts = urlsplit(address)
    kind = SCHEMES.get(parts.scheme)
    if kind is None or not parts.hostname:
        raise ValueError(
            "online_store must be redis://HOST:PORT/DB or postgresql://USER@HOST:PORT/DATABASE; "
            "leave it out for SQLite in the home"
        )
    return kind


def driver_url(address: str) -> str:
    """The address as the drivers take it."""
    return address.replace("postgresql+psycopg://", "postgresql://", 1)


def open_values(path: Path, address: str | None) -> OnlineValues:
    """The values at an address, or in the SQLite file at `path` where there is none.

    Raises ValueError for an address of another kind.
    """
    return _OPENERS[check_address(address) if address else "sqlite"](path, driver_url(address or ""))


def _open_sqlite(path: Path, _address: str) -> OnlineValues:
    from features.store.sqlite_values import SqliteValues

    return SqliteValues(path)


def _open_postgres(_path: Path, address: str) -> OnlineValues:
    from features.store.postgres_values import PostgresValues

    return PostgresValues(address)


def _open_redis(_path: Path, address: str) -> OnlineValues:
    from features.store.redis_values import RedisValues

    return RedisValues(address)


_OPENERS: dict[str, Callable[[Path, str], OnlineValues]] = {
    "sqlite": _open_sqlite,
    "postgres": _open_postgres,
    "redis": _open_redis,
}
