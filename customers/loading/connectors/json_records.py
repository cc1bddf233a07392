"""Posted: records that come a few at a time as JSON, read as texts like the rows of a file."""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

from customers.loading.connectors.files import Records, configure_connection, normalise_column
from customers.shop.errors import ShopError

MAX_FIELDS = 500

# A record with its place in what was posted, its fields as texts.
IndexedRecord = tuple[int, dict[str, str | None]]


def parse_records(records: Sequence[Any]) -> tuple[list[IndexedRecord], dict[int, str]]:
    """The records that are JSON objects of readable text, and for each other one its place and the reason."""
    parsed: list[IndexedRecord] = []
    errors: dict[int, str] = {}
    for index, record in enumerate(records):
        try:
            parsed.append((index, _record_texts(record)))
        except ValueError as reason:
            errors[index] = str(reason)
    return parsed, errors


def group_by_fields(records: Iterable[IndexedRecord]) -> list[list[IndexedRecord]]:
    """The records by the fields that they have: a field that one of them does not say is not empty in it."""
    groups: dict[frozenset[str], list[IndexedRecord]] = {}
    for index, record in records:
        groups.setdefault(frozenset(record), []).append((index, record))
    return list(groups.values())


def build_records(records: Sequence[IndexedRecord], *, columns: Sequence[str]) -> Records:
    """These records as rows, numbered by their places from 1; `columns` are there also where nobody says them."""
    present = list(dict.fromkeys(name for _, record in records for name in record))
    if len(present) > MAX_FIELDS:
        raise ShopError(f"the records have {len(present)} different fields; at most {MAX_FIELDS} can be kept")
    names = list(dict.fromkeys([*columns, *present]))
    arrays = [pa.array([record.get(name) for _, record in records], pa.string()) for name in names]
    numbers = [pa.array([0] * len(records), pa.int32()), pa.array([index + 1 for index, _ in records], pa.int64())]
    rows = Records(_shared_connection().cursor(), [], present)
    configure_connection(rows.connection)
    # Finding the best way through a handful of rows takes longer than any way.
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
        # As JSON writes it: yes and no as true and false, a list or an object whole.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return str(value)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@cache
def _shared_connection() -> duckdb.DuckDBPyConnection:
    """One DuckDB a server: a new one for each sale would take longer than all the rest. Nothing stays in it."""
    return duckdb.connect(config={"threads": 1})
