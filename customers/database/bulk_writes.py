"""Writes many rows at once from columns, in the fastest way that each database has.

SQLite takes many rows in one statement, with a column of one value bound once; PostgreSQL takes a binary COPY.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

# Arrow, or Python objects; of equal length.
Columns = Mapping[str, pa.Array | pa.ChunkedArray | Sequence[Any]]

# Fewer rows cost more calls per row; with many more, the prepared statement no longer fits the processor's cache.
ROWS_PER_STATEMENT = 50
POSTGRES_TYPES = {sa.BigInteger: "int8", sa.Integer: "int4", sa.Text: "text", sa.Float: "float8", sa.Boolean: "bool"}


def insert_columns(
    connection: sa.Connection, table: sa.Table, columns: Columns, single_values: Mapping[str, Any] | None = None
) -> None:
    """Insert a row per position of these columns; `single_values` hold for every row, other columns stay null.

    Raises an error of the driver where a row violates a constraint; on PostgreSQL without the values of the row.
    """
    _write_columns(connection, table, columns, dict(single_values or {}), "")


def upsert_columns(
    connection: sa.Connection, table: sa.Table, columns: Columns, single_values: Mapping[str, Any] | None = None
) -> None:
    """As `insert_columns`; a row whose primary key exists gets these values instead. Keys must be distinct."""
    keys = [column.name for column in table.primary_key]
    changes = [f"{name} = excluded.{name}" for name in (*columns, *(single_values or {})) if name not in keys]
    on_conflict = f"on conflict ({', '.join(keys)}) do update set {', '.join(changes)}"
    _write_columns(connection, table, columns, dict(single_values or {}), on_conflict)


def matches_any(
    connection: sa.Connection, column: sa.Column, values: Sequence[str] | Sequence[int]
) -> sa.ColumnElement[bool]:
    """Whether the column equals one of these texts or whole numbers, all of them bound as one parameter.

    A parameter for each takes SQLAlchemy longer to write than the database needs to look it up.
    """
    if connection.dialect.name == "postgresql":
        return column == sa.any_(sa.cast(sa.literal(list(values), ARRAY(column.type)), ARRAY(column.type)))
    items = sa.func.json_each(json.dumps(list(values))).table_valued("value")
    return column.in_(sa.select(items.c.value))


def _write_columns(
    connection: sa.Connection, table: sa.Table, columns: Columns, single_values: dict[str, Any], on_conflict: str
) -> None:
    if not len(next(iter(columns.values()))):
        return
    for name, column in columns.items():
        if _has_one_value(column):
            single_values[name] = column[0].as_py()
    columns = {name: column for name, column in columns.items() if name not in single_values} or columns
    if connection.dialect.name == "postgresql":
        _copy_rows(connection, table, columns, single_values, on_conflict)
    else:
        _execute_values(connection, table, columns, single_values, on_conflict)


def _has_one_value(column: pa.Array | pa.ChunkedArray | Sequence[Any]) -> bool:
    """Whether an Arrow column is all null or has one value in every row; Python objects are not compared."""
    if not isinstance(column, (pa.Array, pa.ChunkedArray)):
        return False
    if column.null_count:
        return bool(column.null_count == len(column))
    return bool(pc.all(pc.equal(column, column[0])).as_py())


def _to_objects(column: pa.Array | pa.ChunkedArray | Sequence[Any]) -> Sequence[Any] | np.ndarray:
    """Arrow converts texts to Python objects fastest by way of numpy, and numpy the numbers."""
    if not isinstance(column, (pa.Array, pa.ChunkedArray)):
        return column
    if column.null_count and not pa.types.is_string(column.type):
        return column.to_pylist()
    values = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    return values if values.dtype == object else values.tolist()


def _execute_values(
    connection: sa.Connection, table: sa.Table, columns: Columns, single_values: dict[str, Any], on_conflict: str
) -> None:
    single_values = {name: value for name, value in single_values.items() if name not in columns}
    n_rows, n_single = len(next(iter(columns.values()))), len(single_values)
    rows = np.empty((n_rows, len(columns)), object)
    for index, column in enumerate(columns.values()):
        rows[:, index] = _to_objects(column)
    n_grouped = n_rows // ROWS_PER_STATEMENT * ROWS_PER_STATEMENT
    for part, per_statement in ((rows[:n_grouped], ROWS_PER_STATEMENT), (rows[n_grouped:], 1)):
        if len(part):
            parameters = np.empty((len(part) // per_statement, n_single + per_statement * len(columns)), object)
            parameters[:, :n_single] = list(single_values.values())
            parameters[:, n_single:] = part.reshape(len(parameters), -1)
            statement = _values_statement(table, list(columns), list(single_values), per_statement)
            connection.exec_driver_sql(f"{statement} {on_conflict}", list(map(tuple, parameters.tolist())))


def _values_statement(table: sa.Table, names: Sequence[str], single_names: Sequence[str], count: int) -> str:
    """An insert of `count` rows: the first parameters hold for every row, the others follow row by row."""
    single = [f"?{number}" for number in range(1, len(single_names) + 1)]
    first = len(single) + 1
    rows = (
        ", ".join([*single, *(f"?{first + row * len(names) + index}" for index in range(len(names)))])
        for row in range(count)
    )
    values = ", ".join(f"({row})" for row in rows)
    return f"insert into {table.name} ({', '.join([*single_names, *names])}) values {values}"


def _copy_rows(
    connection: sa.Connection, table: sa.Table, columns: Columns, single_values: dict[str, Any], on_conflict: str
) -> None:
    """COPY the columns into the table, or into a temporary one from which the rows are inserted."""
    single_values = {name: value for name, value in single_values.items() if name not in columns}
    if not on_conflict:
        n_rows = len(next(iter(columns.values())))
        objects: dict[str, Iterable[Any]] = {name: _to_objects(column) for name, column in columns.items()}
        objects |= {name: itertools.repeat(value, n_rows) for name, value in single_values.items()}
        return _copy(connection, table, table.name, objects)
    names, staging = ", ".join(columns), f"new_{table.name}"
    connection.exec_driver_sql(
        f"create temp table {staging} on commit drop as select {names} from {table.name} with no data"
    )
    _copy(connection, table, staging, {name: _to_objects(column) for name, column in columns.items()})
    marks = "".join(f"%s::{_type_name(table, name)}, " for name in single_values)
    connection.exec_driver_sql(
        f"insert into {table.name} ({', '.join([*single_values, *columns])}) select {marks}{names} from {staging} "
        + on_conflict,
        tuple(single_values.values()),
    )
    connection.exec_driver_sql(f"drop table {staging}")
    return None


def _copy(connection: sa.Connection, table: sa.Table, target: str, columns: Mapping[str, Iterable[Any]]) -> None:
    import psycopg  # imported here: a shop on SQLite does not need it

    driver_connection: Any = connection.connection.driver_connection
    try:
        with (
            driver_connection.cursor() as cursor,
            cursor.copy(f"copy {target} ({', '.join(columns)}) from stdin (format binary)") as copy,
        ):
            copy.set_types([_type_name(table, name) for name in columns])
            for row in zip(*columns.values(), strict=True):
                copy.write_row(row)
    except psycopg.Error as error:
        # The driver's own message quotes the row, which may be personal.
        raise sa.exc.DBAPIError(
            f"copy {target}",
            None,
            type(error)(f"({error.sqlstate})"),
            connection_invalidated=bool(driver_connection.closed),
        ) from None


def _type_name(table: sa.Table, name: str) -> str:
    return next(text for column_type, text in POSTGRES_TYPES.items() if isinstance(table.c[name].type, column_type))
