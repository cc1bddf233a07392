"""The few tiny reads of every request: one connection outside the pool, and plain statements without SQLAlchemy.

A statement through SQLAlchemy takes some hundred microseconds, as long as a whole answer that is looked up.
"""

from collections.abc import Hashable, Sequence
from contextlib import suppress
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from customers.database import engine

if TYPE_CHECKING:
    from customers.shop.settings import Shop

#: Changes with every commit of another connection; this one never writes.
_VERSION_STATEMENTS = {"sqlite": "pragma data_version", "postgresql": "select pg_current_snapshot()::text"}
#: A database that hangs must not stop a worker, which makes these reads between all others.
POSTGRES_TIMEOUT_MS = 2_000
_numbers = count()


class DirectReader:
    """Reads the database of one shop by one connection, which it opens again after an error; for any thread."""

    def __init__(self, shop: "Shop") -> None:
        self._engine = engine.get_engine(shop)
        self._connection: Any = None
        self._pooled: Any = None
        self._number = 0
        self._lock = Lock()

    def read_version(self) -> Hashable:
        """A value that is equal to an earlier one only where nothing has been committed in between."""
        ((version,),) = self.read(_VERSION_STATEMENTS[self._engine.dialect.name])
        return self._number, version

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement with a question mark for each value.

        Raises ShopUnavailable where the database does not answer, also not on a new connection.
        """
        with self._lock:
            if self._connection is not None:
                # A connection may have died with a database that has been started again.
                with suppress(Exception):
                    return self._execute(statement, values)
                self._close()
            try:
                self._open()
            except (sa.exc.OperationalError, self._engine.dialect.dbapi.OperationalError):  # type: ignore[union-attr]
                raise engine.unavailable_error(self._engine) from None
            try:
                return self._execute(statement, values)
            except Exception:
                self._close()
                raise

    def close(self) -> None:
        """Close the connection; the next read opens another, whose versions equal none of before."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
            self._connection = None

    def _execute(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if self._engine.dialect.paramstyle != "qmark":
            statement = statement.replace("?", "%s")
        rows: list[tuple[Any, ...]] = self._connection.execute(statement, tuple(values)).fetchall()
        return rows

    def _open(self) -> None:
        pooled = self._engine.raw_connection()
        self._connection, self._number = pooled.driver_connection, next(_numbers)
        pooled.detach()
        self._pooled = pooled  # a detached connection closes with its wrapper
        if self._engine.dialect.name == "postgresql":
            self._connection.autocommit = True
            self._connection.execute(f"set statement_timeout = {POSTGRES_TIMEOUT_MS}")


def get_reader(shop: "Shop") -> DirectReader:
    """The reader of the shop's database in this process; versions are compared with those of the same reader."""
    if shop.database_url not in _readers:
        _readers[shop.database_url] = DirectReader(shop)
    return _readers[shop.database_url]


_readers: dict[str, DirectReader] = {}
