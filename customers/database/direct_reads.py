"""The few tiny reads of every request: one connection outside the pool, and plain statements without SQLAlchemy.

A statement through SQLAlchemy takes some hundred microseconds, as long as a whole answer that is looked up.
"""

from collections.abc import Hashable, Sequence
from contextlib import suppress
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Any

from customers.database import engine, outages
from customers.database.outages import ConnectionCut, StatementWatchdog
from customers.shop.errors import ShopUnavailable

if TYPE_CHECKING:
    from customers.shop.settings import Shop

#: Changes with every commit of another connection; this one never writes.
_VERSION_STATEMENTS = {"sqlite": "pragma data_version", "postgresql": "select pg_current_snapshot()::text"}
#: A database that hangs must not stop a worker, which makes these reads between all others.
TIMEOUT_SECONDS = 2
_numbers = count()


class DirectReader:
    """Reads the database of one shop by one connection, which it opens again after an error; for any thread.

    Where the database does not answer, no read tries it again until one outside of any request has succeeded.
    """

    def __init__(self, shop: "Shop") -> None:
        self._engine = engine.get_engine(shop)
        self._connection: Any = None
        self._number = 0
        self._lock = Lock()
        self._watchdog = StatementWatchdog()
        self._watch = outages.watch(self._engine, self._try_out)

    @property
    def is_away(self) -> bool:
        """Whether the database does not answer at present."""
        return self._watch.is_away

    def read_version(self) -> Hashable:
        """A value that is equal to an earlier one only where nothing has been committed in between."""
        ((version,),) = self.read(_VERSION_STATEMENTS[self._engine.dialect.name])
        return self._number, version

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement with a question mark for each value.

        Raises ShopUnavailable where the database does not answer, also not on a new connection.
        """
        self._watch.check()
        if not self._lock.acquire(timeout=TIMEOUT_SECONDS):  # another thread's read hangs, of which nothing is certain
            self._watch.report_failure()
            raise outages.unavailable_error(self._engine)
        try:
            self._watch.check()  # it may have failed while this read waited for its turn
            return self._read(statement, values)
        except Exception as error:
            if not isinstance(error, ShopUnavailable):
                self._close()
            if outages.is_outage(error):
                self._watch.report_failure()
                raise outages.unavailable_error(self._engine) from None
            raise
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection; the next read opens another, whose versions equal none of before."""
        with self._lock:
            self._close()

    def _read(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if self._connection is not None:
            try:
                return self._execute(self._connection, statement, values)
            except ConnectionCut:  # a new connection would hang as well
                raise
            except Exception:  # it may have died with a database that has been started again
                self._close()
        self._open()
        return self._execute(self._connection, statement, values)

    def _close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
            self._connection = None

    def _execute(self, connection: Any, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if self._engine.dialect.paramstyle != "qmark":
            statement = statement.replace("?", "%s")
        with self._watchdog.limit(connection):
            rows: list[tuple[Any, ...]] = connection.execute(statement, tuple(values)).fetchall()
        return rows

    def _open(self) -> None:
        self._connection, self._number = self._connect(), next(_numbers)

    def _connect(self) -> Any:
        return engine.connect_directly(self._engine, seconds=TIMEOUT_SECONDS)

    def _try_out(self) -> None:
        """Read something of the database by a connection of its own."""
        connection = self._connect()
        try:
            self._execute(connection, "select count(*) from ledger_months", ())
        finally:
            connection.close()


def get_reader(shop: "Shop") -> DirectReader:
    """The reader of the shop's database in this process; versions are compared with those of the same reader."""
    if shop.database_url not in _readers:
        _readers[shop.database_url] = DirectReader(shop)
    return _readers[shop.database_url]


_readers: dict[str, DirectReader] = {}
