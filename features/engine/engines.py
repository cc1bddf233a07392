"""The engines that compute features: DuckDB on one machine, Spark on many."""

from collections.abc import Iterator
from contextlib import contextmanager

from ibis.backends import BaseBackend

from customers.shop.settings import DUCKDB
from features.engine import duckdb


@contextmanager
def open_engine(name: str = DUCKDB) -> Iterator[BaseBackend]:
    """A connection to the engine of this name, closed at the end.

    Raises ShopUnavailable where Spark is wanted and its Python package or Java is missing.
    """
    con = duckdb.connect() if name == DUCKDB else _connect_spark()
    try:
        yield con
    finally:
        con.disconnect()


def _connect_spark() -> BaseBackend:
    from features.engine import spark

    return spark.connect()
