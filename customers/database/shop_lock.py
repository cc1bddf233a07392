"""A lock that one process of a shop holds at a time, on whichever machine; it ends with a killed process."""

import fcntl
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import sqlalchemy as sa

from customers.database import engine

if TYPE_CHECKING:
    from customers.shop.settings import Shop

#: The first of the two numbers of every advisory lock of this module.
_ADVISORY_CLASS = 7_130


class LockHeld(Exception):
    """Another process holds the lock."""


@contextmanager
def hold(shop: "Shop", name: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of this name: HOME/NAME.lock, and on PostgreSQL one for all homes of the database.

    Raises LockHeld where another process holds it and `wait` is False.
    """
    with (shop.home / f"{name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise LockHeld(name) from None
        sa_engine = engine.get_engine(shop)
        with _advisory_lock(sa_engine, name, wait) if sa_engine.dialect.name == "postgresql" else nullcontext():
            yield


@contextmanager
def _advisory_lock(sa_engine: sa.Engine, name: str, wait: bool) -> Iterator[None]:
    """A lock of the session, which is opened for it and closed after it."""
    keys = {"first": _ADVISORY_CLASS, "second": zlib.crc32(name.encode()) - 2**31}
    with sa_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if wait:
            connection.execute(sa.text("select pg_advisory_lock(:first, :second)"), keys)
        elif not connection.execute(sa.text("select pg_try_advisory_lock(:first, :second)"), keys).scalar():
            raise LockHeld(name)
        try:
            yield
        finally:
            connection.execute(sa.text("select pg_advisory_unlock(:first, :second)"), keys)
