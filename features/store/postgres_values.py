"""The stored values of the PostgreSQL online store, for a shop with several servers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from features.store import value_codec
from features.store.event_times import EPOCH, to_micros
from features.store.online_values import OnlineValues, StoredRow

UPSERT = sql.SQL(
    "insert into {table} as existing (entity_key, feature_name, value, event_ts, created_ts) "
    "select * from unnest(%b::bytea[], %b::text[], %b::bytea[], %b::timestamptz[], %b::timestamptz[]) "
    "order by 1, 2 "  # so that two writers do not deadlock on each other's rows
    "on conflict (entity_key, feature_name) do update set "
    "value = excluded.value, event_ts = excluded.event_ts, created_ts = excluded.created_ts "
    "where excluded.event_ts >= existing.event_ts"
)
SELECT = sql.SQL("select entity_key, feature_name, value, event_ts from {table} where entity_key = any(%b)")
DELETE = sql.SQL("delete from {table} where entity_key = any(%b)")


Result = TypeVar("Result")


class PostgresValues(OnlineValues):
    """The values in a PostgreSQL database, with a connection for each thread; a lost one is reopened."""

    outages = (psycopg.OperationalError,)

    def __init__(self, address: str) -> None:
        self._address = address
        self._local = threading.local()

    def read(self, view: str, keys: Sequence[int], features: Sequence[str]) -> dict[int, StoredRow]:
        """The stored rows of these customers by key; all features of the view, whichever are requested."""
        query = SELECT.format(table=table_id(view))
        cells = self._run(lambda connection: connection.execute(query, [_entities(keys)]).fetchall())
        rows: dict[int, StoredRow] = {}
        for entity, feature, value, event_at in cells:
            key = value_codec.customer_key(bytes(entity))
            rows.setdefault(key, StoredRow(to_micros(event_at), {})).values[feature] = bytes(value)
        return rows

    def write(self, view: str, rows: Iterable[tuple[int, StoredRow]]) -> None:
        """Write each customer's row unless the stored one is newer; equal times are written."""
        cells = [
            (value_codec.entity_key(key), feature, value, _to_datetime(row.event_us), _to_datetime(row.event_us))
            for key, row in rows
            for feature, value in row.values.items()
        ]
        query, columns = UPSERT.format(table=table_id(view)), to_columns(cells)
        self._run(lambda connection: connection.execute(query, columns))

    def delete(self, views: Collection[str], keys: Sequence[int]) -> None:
        """Delete every value of these customers in these views."""

        def delete_rows(connection: psycopg.Connection) -> None:
            for view in views:
                is_present = connection.execute("select to_regclass(%s) is not null", [table_id(view).as_string()])
                if is_present.fetchall()[0][0]:
                    connection.execute(DELETE.format(table=table_id(view)), [_entities(keys)])

        self._run(delete_rows)

    def _run(self, work: Callable[[psycopg.Connection], Result]) -> Result:
        """Work that may be done twice, in the connection of this thread.

        It is done again in a new connection where an open one turns out to be lost: a server that was restarted is no
        outage.
        """
        connection = getattr(self._local, "connection", None)
        if connection is not None and not connection.closed:
            try:
                return work(connection)
            except psycopg.OperationalError:
                connection.close()
        connection = self._local.connection = psycopg.connect(self._address, connect_timeout=10, autocommit=True)
        try:
            return work(connection)
        except psycopg.OperationalError:
            connection.close()
            raise


def table_id(view: str, project: str = value_codec.PROJECT) -> sql.Identifier:
    """Feast's table of a view."""
    return sql.Identifier(f"{project}_{view}")


def to_columns(cells: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """The cells of UPSERT by column."""
    return [list(column) for column in zip(*cells, strict=True)] or [[]] * 5


def _entities(keys: Sequence[int]) -> list[bytes]:
    return [value_codec.entity_key(key) for key in keys]


def _to_datetime(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)
