"""Posted: records that come a few at a time as JSON, read as texts like the rows of a file."""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa

from customers.shop import ShopError
from customers.sources.files import Records, plain_name, settle

MOST_FIELDS = 500

# A record with its place in what was posted, its fields as texts.
Placed = tuple[int, dict[str, str | None]]


def texts(records: Sequence[Any]) -> tuple[list[Placed], dict[int, str]]:
    """The records that are JSON objects of readable text, and for each other one its place and the reason."""
    good: list[Placed] = []
    wrong: dict[int, str] = {}
    for index, record in enumerate(records):
        try:
            good.append((index, _texts(record)))
        except ValueError as reason:
            wrong[index] = str(reason)
    return good, wrong


def alike(records: Iterable[Placed]) -> list[list[Placed]]:
    """The records by the fields that they have: a field that one of them does not say is not empty in it."""
    groups: dict[frozenset[str], list[Placed]] = {}
    for index, record in records:
        groups.setdefault(frozenset(record), []).append((index, record))
    return list(groups.values())


def read(records: Sequence[Placed], *, columns: Sequence[str]) -> Records:
    """These records as rows, numbered by their places from 1; `columns` are there also where nobody says them."""
    said = list(dict.fromkeys(name for _, record in records for name in record))
    if len(said) > MOST_FIELDS:
        raise ShopError(f"the records have {len(said)} different fields; at most {MOST_FIELDS} can be kept")
    names = list(dict.fromkeys([*columns, *said]))
    arrays = [pa.array([record.get(name) for _, record in records], pa.string()) for name in names]
    numbers = [pa.array([0] * len(records), pa.int32()), pa.array([index + 1 for index, _ in records], pa.int64())]
    rows = Records(_room().cursor(), [], said)
    settle(rows.connection)
    # Finding the best way through a handful of rows takes longer than any way.
    rows.connection.execute("pragma disable_optimizer")
    rows.connection.register("posted", pa.table([*numbers, *arrays], names=["file_no", "row_no", *names]))
    rows.connection.execute("create temp table raw as from posted")
    return rows


def _texts(record: Any) -> dict[str, str | None]:
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    named: dict[str, str | None] = {}
    for name, value in record.items():
        plain = plain_name(str(name))
        if plain in named:
            raise ValueError("two fields of one name")
        named[plain] = _text(value)
        if not _readable(plain) or not _readable(named[plain] or ""):
            raise ValueError("text that is not Unicode")
    return named


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float, list, dict)):
        # As JSON writes it: yes and no as true and false, a list or an object whole.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return str(value)


def _readable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


@cache
def _room() -> duckdb.DuckDBPyConnection:
    """One DuckDB a server: a new one for each sale would take longer than all the rest. Nothing stays in it."""
    return duckdb.connect(config={"threads": 1})
