"""Writes an export table to a file, a portion of its rows at a time."""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from customers.reports import exports
from customers.shop.settings import Shop

FORMATS = {".csv": "csv", ".parquet": "parquet", ".ndjson": "ndjson"}
#: Types of the columns of lists: a portion may have only empty ones.
LIST_TYPES = {
    "cdf": pa.list_(pa.float64()),
    "reasons": pa.list_(pa.string()),
    "contactable": pa.list_(pa.string()),
}


def write_frames(frames: Iterable[pd.DataFrame], path: Path, file_format: str) -> int:
    """Write frames of equal columns as one file, a row per row of them; returns the number of rows.

    `file_format` is one of FORMATS. Of CSV the first line has the column names, also where there are no rows. In
    Parquet a column without any value is text.
    """
    return {"csv": _write_csv, "ndjson": _write_ndjson, "parquet": _write_parquet}[file_format](iter(frames), path)


@dataclass(frozen=True)
class PortionExport:
    """An export table of a shop that is written in portions: as of which scores, and into which folder."""

    shop: Shop
    table: str
    as_of: datetime | None
    folder: Path


def write_portion(export: PortionExport, portion: tuple[int, range | None]) -> int:
    """Write one portion (its number, its range of customer keys) as folder/part-NUMBER.parquet; the number of rows.

    The file is moved into place when it is complete, so that this may be repeated.
    """
    number, key_range = portion
    frame = exports.build_portion(export.shop, export.table, key_range, as_of=export.as_of)
    path = export.folder / f"part-{number:05}.parquet"
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    n_rows = write_frames([frame], partial, "parquet")
    partial.replace(path)
    return n_rows


def _write_csv(frames: Iterator[pd.DataFrame], path: Path) -> int:
    n_rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, frame in enumerate(frames):
            frame.to_csv(file, index=False, header=number == 0)
            n_rows += len(frame)
    return n_rows


def _write_ndjson(frames: Iterator[pd.DataFrame], path: Path) -> int:
    n_rows = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        for frame in frames:
            if len(frame):
                frame.to_json(file, orient="records", lines=True, date_format="iso", force_ascii=False)
            n_rows += len(frame)
        if not n_rows:
            file.write("\n")  # as pandas writes a frame without rows
    return n_rows


def _write_parquet(frames: Iterator[pd.DataFrame], path: Path) -> int:
    first = next(frames)
    schema = _schema(first)
    n_rows = 0
    with pq.ParquetWriter(path, schema, coerce_timestamps="us") as writer:
        for frame in _prepend(first, frames):
            frame.attrs = {}  # they hold timestamps, which Parquet metadata cannot
            writer.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False))
            n_rows += len(frame)
    return n_rows


def _prepend(first: pd.DataFrame, others: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    yield first
    yield from others


def _schema(frame: pd.DataFrame) -> pa.Schema:
    """The Arrow schema of frames with these columns, whichever of their values are missing."""
    frame.attrs = {}
    schema = pa.Schema.from_pandas(frame, preserve_index=False)
    for index, field in enumerate(schema):
        if field.name in LIST_TYPES or pa.types.is_null(field.type):
            schema = schema.set(index, pa.field(field.name, LIST_TYPES.get(field.name, pa.string())))
    return schema
