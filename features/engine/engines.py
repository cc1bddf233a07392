"""The engines that compute features: DuckDB on one machine, Spark on many."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from ibis.backends import BaseBackend
from ibis.backends.duckdb import Backend

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


def register_rows(con: BaseBackend, name: str, rows: pa.Table) -> None:
    """Let `name` stand for the rows of an Arrow table, columns as they are, in the queries of `con`."""
    if isinstance(con, Backend):
        con.con.register(name, rows)
    else:
        con.create_table(name, rows, temp=True)


def _connect_spark() -> BaseBackend:
    from features.engine import spark

    return spark.connect()
