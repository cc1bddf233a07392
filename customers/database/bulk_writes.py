"""Writes many rows at once from Arrow columns, the fastest way that each database has.

SQLite takes many rows in one statement, with a column of one value bound once; PostgreSQL takes a binary COPY.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

# Fewer rows cost more calls per row; with many more, the prepared statement no longer fits the processor's cache.
ROWS_PER_STATEMENT = 50
POSTGRES_TYPES = {sa.BigInteger: "int8", sa.Integer: "int4", sa.Text: "text", sa.Float: "float8", sa.Boolean: "bool"}


def insert_columns(connection: sa.Connection, table: sa.Table, columns: Mapping[str, pa.Array]) -> None:
    """Insert a row per position of these columns of equal length; the table's other columns stay null.

    Raises an error of the driver where a row violates a constraint; on PostgreSQL without the values of the row.
    """
    if not len(next(iter(columns.values()))):
        return
    if connection.dialect.name == "postgresql":
        _copy_columns(connection, table, table.name, columns)
    else:
        _execute_values(connection, table.name, columns, "")


def upsert_columns(connection: sa.Connection, table: sa.Table, columns: Mapping[str, pa.Array]) -> None:
    """As `insert_columns`; a row whose primary key exists gets these values instead. Keys must be distinct."""
    if not len(next(iter(columns.values()))):
        return None
    keys = [column.name for column in table.primary_key]
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in keys)
    on_conflict = f"on conflict ({', '.join(keys)}) do update set {changes}"
    if connection.dialect.name != "postgresql":
        return _execute_values(connection, table.name, columns, on_conflict)
    names, staging = ", ".join(columns), f"new_{table.name}"
    connection.exec_driver_sql(
        f"create temp table if not exists {staging} on commit drop as select {names} from {table.name} with no data"
    )
    _copy_columns(connection, table, staging, columns)
    connection.exec_driver_sql(f"insert into {table.name} ({names}) select {names} from {staging} {on_conflict}")
    connection.exec_driver_sql(f"truncate {staging}")
    return None


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


def _execute_values(
    connection: sa.Connection, table_name: str, columns: Mapping[str, pa.Array], on_conflict: str
) -> None:
    single_values = {name: column[0].as_py() for name, column in columns.items() if _has_one_value(column)}
    names = [name for name in columns if name not in single_values]
    rows = _object_rows([columns[name] for name in names], len(next(iter(columns.values()))))
    n_grouped = len(rows) // ROWS_PER_STATEMENT * ROWS_PER_STATEMENT
    for part, per_statement in ((rows[:n_grouped], ROWS_PER_STATEMENT), (rows[n_grouped:], 1)):
        if not len(part):
            continue
        statement = _values_statement(table_name, names, list(single_values), per_statement, on_conflict)
        parameters = part.reshape(len(part) // per_statement, per_statement * len(names))
        constants = np.empty((len(parameters), len(single_values)), object)
        constants[:] = list(single_values.values())
        parameter_lists = np.concatenate([constants, parameters], axis=1).tolist()
        connection.exec_driver_sql(statement, [tuple(values) for values in parameter_lists])


def _values_statement(
    table_name: str, names: Sequence[str], constant_names: Sequence[str], count: int, on_conflict: str
) -> str:
    """An insert of `count` rows: parameters 1 to n_constants hold for every row, the others follow row by row."""
    constants = [f"?{number}" for number in range(1, len(constant_names) + 1)]
    first = len(constants) + 1
    rows = (
        ", ".join([*constants, *(f"?{first + row * len(names) + index}" for index in range(len(names)))])
        for row in range(count)
    )
    values = ", ".join(f"({row})" for row in rows)
    return f"insert into {table_name} ({', '.join([*constant_names, *names])}) values {values} {on_conflict}"


def _has_one_value(column: pa.Array) -> bool:
    if column.null_count:
        return bool(column.null_count == len(column))
    return bool(pc.all(pc.equal(column, column[0])).as_py())


def _object_rows(columns: Sequence[pa.Array], n_rows: int) -> np.ndarray:
    """The columns as Python objects, shape (n_rows, n_columns)."""
    rows = np.empty((n_rows, len(columns)), object)
    for index, column in enumerate(columns):
        rows[:, index] = _to_objects(column)
    return rows


def _to_objects(column: pa.Array) -> list[Any] | np.ndarray:
    """Arrow converts texts to Python objects fastest by way of numpy, and numpy the numbers."""
    if column.null_count and not pa.types.is_string(column.type):
        return column.to_pylist()
    values = column.to_numpy(zero_copy_only=False)
    return values if values.dtype == object else values.tolist()


def _copy_columns(connection: sa.Connection, table: sa.Table, target: str, columns: Mapping[str, pa.Array]) -> None:
    import psycopg

    type_names = [
        next(name for column_type, name in POSTGRES_TYPES.items() if isinstance(table.c[column].type, column_type))
        for column in columns
    ]
    driver_connection: Any = connection.connection.driver_connection
    try:
        with (
            driver_connection.cursor() as cursor,
            cursor.copy(f"copy {target} ({', '.join(columns)}) from stdin (format binary)") as copy,
        ):
            copy.set_types(type_names)
            for row in _iter_rows(columns):
                copy.write_row(row)
    except psycopg.Error as error:
        # The driver's own message quotes the row, which may be personal.
        raise sa.exc.IntegrityError(f"copy {target}", None, type(error)(f"({error.sqlstate})")) from None


def _iter_rows(columns: Mapping[str, pa.Array]) -> Iterator[tuple]:
    return zip(*(_to_objects(column) for column in columns.values()), strict=True)
