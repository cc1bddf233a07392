"""Columns of numbers in files: written portion by portion, read by mapping them into memory.

A file holds one column, as the bytes of its values; a list column has the values of all rows one after another, and a
column of offsets, (n_rows + 1,), that says where each row begins. What the values are is described in `columns.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from customers.shop import durable_files

Column = NDArray[Any]
DESCRIPTION_FILE = "columns.json"
OFFSETS_SUFFIX = ".offsets"


class DamagedColumn(ValueError):
    """A column's file is shorter or longer than what was written."""


@dataclass(frozen=True)
class ListColumns:
    """List columns of the same lengths: `sizes`, (n_rows,), and by name the values of all rows, (n_values,) or more."""

    sizes: Column
    values: Mapping[str, Column]


class ColumnWriter:
    """Writes columns into a new folder, portion by portion; rows of all portions follow one another."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self._types: dict[str, dict[str, Any]] = {}
        self._counts: dict[str, int] = {}
        self._ends: dict[str, int] = {}

    def append(self, columns: Mapping[str, Column], lists: Mapping[str, ListColumns] | None = None) -> None:
        """Append rows: arrays of shape (n_rows,) or (n_rows, k) by name, and list columns by the name of their list.

        A list column has the name "LIST.COLUMN". Raises ValueError where a column changes its type.
        """
        for name, values in columns.items():
            self._write(name, values)
        for list_name, group in (lists or {}).items():
            offsets = self._ends.get(list_name, 0) + np.cumsum(group.sizes, dtype=np.int64)
            if list_name not in self._ends:
                self._write(f"{list_name}{OFFSETS_SUFFIX}", np.zeros(1, np.int64))
            self._ends[list_name] = int(offsets[-1]) if len(offsets) else self._ends.get(list_name, 0)
            self._write(f"{list_name}{OFFSETS_SUFFIX}", offsets)
            for name, values in group.values.items():
                self._write(f"{list_name}.{name}", values)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been written yet."""
        return not self._files

    def flush(self) -> None:
        """Bring everything that was written into the files."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Finish the files and write what they hold; afterwards, all of it is on the disk."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        described = {name: {**each, "count": self._counts[name]} for name, each in self._types.items()}
        durable_files.write_atomically(self.folder / DESCRIPTION_FILE, json.dumps(described))

    def _write(self, name: str, values: Column) -> None:
        described = {"type": values.dtype.str, "width": [int(size) for size in values.shape[1:]]}
        if self._types.setdefault(name, described) != described:
            raise ValueError(f"column {name} cannot be {described}: it is {self._types[name]}")
        if name not in self._files:
            self._files[name] = (self.folder / f"{name}.bin").open("wb")
        self._files[name].write(np.ascontiguousarray(values).tobytes())
        self._counts[name] = self._counts.get(name, 0) + len(values)


class ColumnReader:
    """The columns of a folder as read-only arrays over mapped files; (n_rows,) or (n_rows, k), and those of lists.

    Raises DamagedColumn for a file that is not as long as it was written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        described = _read_description(folder)
        self._columns = {name: _map_column(folder, name, each, "r") for name, each in described.items()}

    def __getitem__(self, name: str) -> Column:
        return self._columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def bounds(self, list_name: str, row: int) -> tuple[int, int]:
        """Where the values of a row of this list begin and end."""
        offsets = self._columns[f"{list_name}{OFFSETS_SUFFIX}"]
        return int(offsets[row]), int(offsets[row + 1])

    def all_bounds(self, list_name: str, rows: Sequence[int]) -> tuple[Column, Column]:
        """As `bounds`, of several rows: two arrays of shape (n_rows,)."""
        offsets, positions = self._columns[f"{list_name}{OFFSETS_SUFFIX}"], np.asarray(rows, np.int64)
        return offsets[positions].astype(np.int64), offsets[positions + 1].astype(np.int64)


def overwrite_rows(folder: Path, rows: Column, *, besides: Collection[str]) -> None:
    """Overwrite everything that these rows (n,) hold with zeros, in the files themselves, but for some columns."""
    reader = ColumnReader(folder)
    for name in _read_description(folder):
        if name in besides or name.endswith(OFFSETS_SUFFIX):
            continue
        values, list_name = map_for_writing(folder, name), name.rpartition(".")[0]
        for row in rows.tolist():
            start, end = reader.bounds(list_name, row) if list_name else (row, row + 1)
            values[start:end] = 0


def map_for_writing(folder: Path, name: str) -> Column:
    """A column, (n_rows,) or (n_rows, k), whose changes go to its file and to everyone who reads it."""
    return _map_column(folder, name, _read_description(folder)[name], "r+")


def _read_description(folder: Path) -> dict[str, dict[str, Any]]:
    return dict(json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8")))


def _map_column(folder: Path, name: str, described: Mapping[str, Any], mode: Any) -> Column:
    dtype, width, count = np.dtype(described["type"]), tuple(described["width"]), int(described["count"])
    path = folder / f"{name}.bin"
    if path.stat().st_size != count * dtype.itemsize * int(np.prod(width, dtype=np.int64)):
        raise DamagedColumn(f"{path.name} does not hold its {count} rows; run: regulars score")
    if not count:
        return np.empty((0, *width), dtype)
    mapped = np.memmap(path, dtype, mode, shape=(count, *width))
    return mapped.view(np.ndarray)
