"""Whether the customer database answers: while it does not, requests fail at once and one thread tries it again.

Only a process that makes direct reads, a server's worker, watches its database; elsewhere an error is simply an error.
"""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa

from customers.shop.errors import ShopUnavailable

log = logging.getLogger("regulars.database")

#: A statement of a few rows that takes longer has no answer: its connection is cut.
STATEMENT_SECONDS = 2.0
#: How often a database that does not answer is tried again.
RETRY_SECONDS = 1.0
_CHECK_SECONDS = 0.25


class ConnectionCut(Exception):
    """A statement took too long, and its connection was cut."""


class StatementWatchdog:
    """Cuts the connections of statements that take too long: a server that hangs does not even refuse."""

    def __init__(self, seconds: float = STATEMENT_SECONDS) -> None:
        self._seconds = seconds
        self._deadlines: dict[object, tuple[float, Any]] = {}
        self._cut: set[object] = set()
        self._lock = Lock()
        self._thread: Thread | None = None

    @contextmanager
    def limit(self, connection: Any) -> Iterator[None]:
        """Bound what is executed on a driver's connection inside the block. Raises ConnectionCut."""
        token = object()
        with self._lock:
            if self._thread is None:
                self._thread = Thread(target=self._watch, daemon=True, name="statement watchdog")
                self._thread.start()
            self._deadlines[token] = (time.monotonic() + self._seconds, connection)
        try:
            yield
        except Exception:
            if token in self._cut:
                raise ConnectionCut from None
            raise
        finally:
            with self._lock:  # from here on the connection may be closed, and its descriptor be another's
                self._deadlines.pop(token, None)
                self._cut.discard(token)

    def _watch(self) -> None:
        while True:
            time.sleep(_CHECK_SECONDS)
            now = time.monotonic()
            with self._lock:
                for token, (deadline, connection) in self._deadlines.items():
                    if deadline < now and token not in self._cut:
                        self._cut.add(token)
                        cut_connection(connection)


def cut_connection(connection: Any) -> None:
    """End the network connection of a driver's connection, whose statement then fails; nothing for a file."""
    if hasattr(connection, "fileno"):
        with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)


class DatabaseWatch:
    """Whether one database answers. `try_out` makes a connection and a read, and raises where it does not."""

    def __init__(self, sa_engine: sa.Engine, try_out: Callable[[], None]) -> None:
        self._engine = sa_engine
        self._try_out = try_out
        self._connections: WeakSet[Any] = WeakSet()
        self._lock = Lock()
        self.is_away = False
        if sa_engine.dialect.name != "sqlite":
            sa.event.listen(sa_engine, "connect", lambda connection, _: self._connections.add(connection))

    def check(self) -> None:
        """Raises ShopUnavailable while the database does not answer, without trying it."""
        if self.is_away:
            raise unavailable_error(self._engine)

    def report_failure(self) -> None:
        """Let all requests fail at once from now on, until the database answers again."""
        with self._lock:
            if self.is_away:
                return
            self.is_away = True
            try:
                Thread(target=self._await_return, daemon=True, name="database outage").start()
            except RuntimeError:  # no thread would notice that the database answers again: the requests do
                self.is_away = False
                return
        log.warning("the customer database does not answer")

    def _await_return(self) -> None:
        has_cut = False
        while not self._answers():
            if not has_cut:
                has_cut = self._cut_connections()
            time.sleep(RETRY_SECONDS)
        log.warning("the customer database answers again")
        self.is_away = False

    def _cut_connections(self) -> bool:
        """Cut all connections, since what others wait for is not going to come; False where it must be tried again."""
        try:
            for connection in list(self._connections):
                cut_connection(connection)
        except RuntimeError:  # a thread has opened a connection while the set was copied
            return False
        return True

    def _answers(self) -> bool:
        try:
            self._try_out()
        except Exception:
            return False
        return True


#: The watched databases of this process, by URL.
_watches: dict[sa.URL, DatabaseWatch] = {}


def watch(sa_engine: sa.Engine, try_out: Callable[[], None]) -> DatabaseWatch:
    """The watch over the database of an engine; begun at the first call."""
    if sa_engine.url not in _watches:
        _watches[sa_engine.url] = DatabaseWatch(sa_engine, try_out)
    return _watches[sa_engine.url]


def check(sa_engine: sa.Engine) -> None:
    """Raises ShopUnavailable while a watched database does not answer, without trying it."""
    if _watches and (watched := _watches.get(sa_engine.url)) is not None:
        watched.check()


def is_outage(error: Exception) -> bool:
    """Whether an error of a driver, or of SQLAlchemy about one, is the database's own and not the statement's."""
    code = getattr(getattr(error, "orig", error), "sqlite_errorcode", None)
    if code is not None:
        return bool(code & 0xFF != sqlite3.SQLITE_ERROR)
    names = {each.__name__ for each in type(error).__mro__}
    return bool(names & {"OperationalError", "InterfaceError", "ConnectionCut"})


def unavailable_error(sa_engine: sa.Engine) -> Exception:
    """The error for a database that does not answer; it names the address without a password."""
    address = sa_engine.url.render_as_string(hide_password=True)
    return ShopUnavailable(f"the customer database does not answer at {address}; check database_url")
