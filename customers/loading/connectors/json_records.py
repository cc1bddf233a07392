"""Reads records posted as JSON, a few at a time, into the same tables of texts as the rows of a file."""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

from customers.loading.connectors.files import Records, configure_connection, normalise_column
from customers.shop.errors import ShopError

MAX_FIELDS = 500

# (index in the posted list, the record's fields as texts).
IndexedRecord = tuple[int, dict[str, str | None]]


def parse_records(records: Sequence[Any]) -> tuple[list[IndexedRecord], dict[int, str]]:
    """The records that are JSON objects of valid text, and for every other index the reason why it is not."""
    parsed: list[IndexedRecord] = []
    errors: dict[int, str] = {}
    for index, record in enumerate(records):
        try:
            parsed.append((index, _record_texts(record)))
        except ValueError as reason:
            errors[index] = str(reason)
    return parsed, errors


def group_by_fields(records: Iterable[IndexedRecord]) -> list[list[IndexedRecord]]:
    """Group records by their set of fields: a field that a record lacks is absent, not empty."""
    groups: dict[frozenset[str], list[IndexedRecord]] = {}
    for index, record in records:
        groups.setdefault(frozenset(record), []).append((index, record))
    return list(groups.values())


def build_records(records: Sequence[IndexedRecord], *, columns: Sequence[str]) -> Records:
    """These records as table `raw`, with row_no = index + 1; `columns` are added as nulls where no record has them.

    Raises ShopError where the records have more than 500 different fields.
    """
    present = list(dict.fromkeys(name for _, record in records for name in record))
    if len(present) > MAX_FIELDS:
        raise ShopError(f"the records have {len(present)} different fields; at most {MAX_FIELDS} can be kept")
    names = list(dict.fromkeys([*columns, *present]))
    arrays = [pa.array([record.get(name) for _, record in records], pa.string()) for name in names]
    numbers = [pa.array([0] * len(records), pa.int32()), pa.array([index + 1 for index, _ in records], pa.int64())]
    rows = Records(_shared_connection().cursor(), [], present)
    configure_connection(rows.connection)
    # For a few rows, optimising a query takes longer than running it.
    rows.connection.execute("pragma disable_optimizer")
    rows.connection.register("posted", pa.table([*numbers, *arrays], names=["file_no", "row_no", *names]))
    rows.connection.execute("create temp table raw as from posted")
    return rows


def _record_texts(record: Any) -> dict[str, str | None]:
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    fields: dict[str, str | None] = {}
    for name, value in record.items():
        column = normalise_column(str(name))
        if column in fields:
            raise ValueError("two fields of one name")
        fields[column] = _value_text(value)
        if not _is_unicode(column) or not _is_unicode(fields[column] or ""):
            raise ValueError("text that is not Unicode")
    return fields


def _value_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float, list, dict)):
        # As in JSON: true and false for booleans, a list or an object as its JSON text.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return str(value)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@cache
def _shared_connection() -> duckdb.DuckDBPyConnection:
    """One DuckDB database per process, without rows: opening one per sale would take longer than all the rest."""
    return duckdb.connect(config={"threads": 1})
