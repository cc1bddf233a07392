"""A lock that one process of a shop holds at a time, on whichever machine; it ends with a killed process."""

import fcntl
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

import sqlalchemy as sa

from customers.database import engine

if TYPE_CHECKING:
    from customers.shop.settings import Shop

#: So long another machine is waited for: one that hangs must not stop the others for ever.
WAIT_SECONDS = 60
#: The first of the two numbers of every advisory lock of this module.
_ADVISORY_CLASS = 7_130


class LockHeld(Exception):
    """Another process holds the lock."""


@contextmanager
def hold(shop: "Shop", name: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of this name: HOME/NAME.lock, and on PostgreSQL one for all homes of the database.

    Raises LockHeld where another process holds it and `wait` is False, or another machine for longer than WAIT_SECONDS.
    """
    with hold_home(shop, name, wait=wait):
        sa_engine = engine.get_engine(shop)
        with _advisory_lock(sa_engine, name, wait) if sa_engine.dialect.name == "postgresql" else nullcontext():
            yield


@contextmanager
def hold_home(shop: "Shop", name: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of this name in this home only. Raises LockHeld as `hold` does."""
    with (shop.home / f"{name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise LockHeld(name) from None
        yield


def is_free(shop: "Shop", name: str, *, in_home: bool = False) -> bool:
    """Whether no process of the shop holds the lock of this name; with `in_home`, none in this home."""
    try:
        with (hold_home if in_home else hold)(shop, name, wait=False):
            return True
    except LockHeld:
        return False


@contextmanager
def _advisory_lock(sa_engine: sa.Engine, name: str, wait: bool) -> Iterator[None]:
    """A lock of the session of one connection, which is kept for it.

    A session that the server has ended has lost the lock: that is not noticed until the next use of the connection.
    """
    keys = {"first": _ADVISORY_CLASS, "second": zlib.crc32(name.encode()) - 2**31}
    with sa_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if wait:
            connection.exec_driver_sql(f"set lock_timeout = '{WAIT_SECONDS}s'")
            try:
                connection.execute(sa.text("select pg_advisory_lock(:first, :second)"), keys)
            except sa.exc.OperationalError:
                raise LockHeld(name) from None
            connection.exec_driver_sql("reset lock_timeout")
        elif not connection.execute(sa.text("select pg_try_advisory_lock(:first, :second)"), keys).scalar():
            raise LockHeld(name)
        try:
            yield
        finally:
            with suppress(sa.exc.DBAPIError):  # the work is done, also where the session was lost meanwhile
                connection.execute(sa.text("select pg_advisory_unlock(:first, :second)"), keys)
