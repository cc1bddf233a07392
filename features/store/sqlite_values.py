"""The stored values of the SQLite online store: the newest features of each customer, in one file of the home."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from features.store import value_codec
from features.store.online_values import OnlineValues, StoredRow

MAX_KEYS_PER_QUERY = 10_000  # SQLite limits the number of parameters
#: entity_key, feature_name, value, event_ts and created_ts, times in microseconds since 1970.
Cell = tuple[bytes, str, bytes, int, int | None]


class SqliteValues(OnlineValues):
    """The values in one file, with a connection for each thread; readers never wait for a writer (WAL)."""

    outages = (sqlite3.OperationalError,)

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()

    def read(self, view: str, keys: Sequence[int], features: Sequence[str]) -> dict[int, StoredRow]:
        """The stored rows of these customers by key; all features of the view, unless a single one is requested."""
        rows: dict[int, StoredRow] = {}
        only = features[0] if len(features) == 1 else None
        for entity, feature, value, micros in select_cells(self._connection(), table_name(view), _entities(keys), only):
            rows.setdefault(value_codec.customer_key(entity), StoredRow(micros, {})).values[feature] = value
        return rows

    def write(self, view: str, rows: Iterable[tuple[int, StoredRow]]) -> None:
        """Write each customer's row unless the stored one is newer; equal times are written."""
        upsert_cells(self._connection(), table_name(view), _to_cells(rows))

    def write_views(self, rows_by_view: Mapping[str, Mapping[int, StoredRow]]) -> None:
        """As `write`, for the rows by customer of several views, in one transaction."""
        connection = self._connection()
        with connection:
            for view, rows in rows_by_view.items():
                connection.executemany(_upsert(table_name(view)), _to_cells(rows.items()))

    def delete(self, views: Collection[str], keys: Sequence[int]) -> None:
        """Delete every value of these customers, from the file's free pages too."""
        if self._path.exists():
            delete_cells(self._connection(), [table_name(view) for view in views], _entities(keys))

    def _connection(self) -> sqlite3.Connection:
        if not hasattr(self._local, "connection"):
            connection = sqlite3.connect(self._path, check_same_thread=False)
            configure(connection)
            self._local.connection = connection
        return self._local.connection


def configure(connection: sqlite3.Connection) -> None:
    """Set up a new connection: it waits for a writer, and its readers do not (WAL)."""
    connection.execute("pragma busy_timeout = 30000")
    connection.execute("pragma journal_mode = wal")
    # Features can be computed again: a power cut may lose the newest ones, but never damages the file.
    connection.execute("pragma synchronous = normal")


def table_name(view: str, project: str = value_codec.PROJECT) -> str:
    """Feast's table of a view, quoted."""
    return f'"{project}_{view}"'


def select_cells(
    connection: sqlite3.Connection, table: str, entities: Sequence[bytes], feature: str | None = None
) -> Iterator[tuple[bytes, str, bytes, int]]:
    """The stored cells of these entity keys: entity_key, feature_name, value, and event_ts in microseconds.

    Where a feature is given, only its cells.
    """
    condition, parameters = ("", []) if feature is None else (" and feature_name = ?", [feature])
    for start in range(0, len(entities), MAX_KEYS_PER_QUERY):
        chunk = entities[start : start + MAX_KEYS_PER_QUERY]
        yield from connection.execute(
            # The cast avoids Feast's own conversion of the column's declared type.
            f"select entity_key, feature_name, value, cast(event_ts as integer) from {table} "
            f"where entity_key in ({','.join('?' * len(chunk))}){condition}",
            [*chunk, *parameters],
        )


def upsert_cells(connection: sqlite3.Connection, table: str, cells: Iterable[Cell]) -> None:
    """Write cells in one transaction, each unless the stored one is newer; equal times are written."""
    with connection:
        connection.executemany(_upsert(table), cells)


def _upsert(table: str) -> str:
    return (
        f"insert into {table} (entity_key, feature_name, value, event_ts, created_ts) "
        "values (?, ?, ?, ?, ?) on conflict (entity_key, feature_name) do update set "
        "value = excluded.value, event_ts = excluded.event_ts, created_ts = excluded.created_ts "
        "where excluded.event_ts >= event_ts"
    )


def delete_cells(connection: sqlite3.Connection, tables: Iterable[str], entities: Sequence[bytes]) -> None:
    """Delete every cell of these entity keys, from the file's free pages too; absent tables hold none."""
    present = {f'"{name}"' for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    connection.execute("pragma secure_delete = on")
    with connection:
        for table in present.intersection(tables):
            connection.executemany(f"delete from {table} where entity_key = ?", [(entity,) for entity in entities])
    connection.execute("pragma wal_checkpoint(truncate)")


def _entities(keys: Sequence[int]) -> list[bytes]:
    return [value_codec.entity_key(key) for key in keys]


def _to_cells(rows: Iterable[tuple[int, StoredRow]]) -> Iterator[Cell]:
    for key, row in rows:
        entity = value_codec.entity_key(key)
        for feature, value in row.values.items():
            yield entity, feature, value, row.event_us, row.event_us
