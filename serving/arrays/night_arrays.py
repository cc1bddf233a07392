"""Publication of a night's arrays: a folder for each model, a pointer that is replaced, and the erasure of customers.

    lookup/churn.json                         the pointer: which folder holds, and the facts of the night
    lookup/churn/20180101T050000-1-1f2e3d4c/  the columns of one night

Row numbers rise with the customer key. No customer id and no personal field is in these files.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from customers.scores.current_scores import RunWatermark
from customers.shop import durable_files
from serving.arrays import column_files
from serving.arrays.column_files import ColumnReader, ColumnWriter

#: Rises when what the columns mean changes: arrays of an earlier meaning are not read.
FORMAT = 2
KEY_COLUMN, POSITION_COLUMN = "customer_key", "position"


@dataclass(frozen=True)
class NightFacts:
    """What a night's arrays of one model were made of; answers are looked up only where all of it still holds.

    `versions`: the version of each model that they depend on. `settings` and `catalogue` are digests. `details` holds
    what the question needs to be answered, such as a horizon.
    """

    model: str
    as_of: datetime
    watermark: RunWatermark
    versions: dict[str, str]
    settings: str
    catalogue: str
    details: dict[str, Any] = field(default_factory=dict)


class NightArrays:
    """The published arrays of one model: facts, columns, and the row of each customer key."""

    def __init__(self, facts: NightFacts, folder: Path) -> None:
        self.facts = facts
        self.folder = folder
        self.columns = ColumnReader(folder)

    @cached_property
    def keys(self) -> NDArray[np.int64]:
        """The customer keys, rising, shape (n,)."""
        return self.columns[KEY_COLUMN]

    def find_rows(self, keys: Sequence[int]) -> list[int]:
        """The row of each customer key in the columns; -1 for one without a row."""
        if not len(self.keys):
            return [-1] * len(keys)
        wanted = np.asarray(keys, np.int64)
        nearest = np.searchsorted(self.keys, wanted).clip(max=len(self.keys) - 1)
        rows = np.where(self.keys[nearest] == wanted, self.columns[POSITION_COLUMN][nearest], -1)
        return list(rows.tolist())


def begin(home: Path, model: str) -> ColumnWriter:
    """A writer into a folder that nobody reads yet."""
    folder = home / "lookup" / model / f".partial-{os.getpid()}-{secrets.token_hex(4)}"
    return ColumnWriter(folder)


def publish(home: Path, writer: ColumnWriter, facts: NightFacts) -> None:
    """Make the written columns those that are read, and delete the ones before; workers that read these go on."""
    _sort_keys(writer)
    writer.close()
    stamp = facts.as_of.astimezone(UTC).strftime("%Y%m%dT%H%M%S")
    folder = writer.folder.with_name(f"{stamp}-{secrets.token_hex(4)}")
    writer.folder.replace(folder)
    pointer = {"format": FORMAT, "folder": folder.name, "facts": {**asdict(facts), "as_of": facts.as_of.isoformat()}}
    durable_files.sync(folder.parent)
    durable_files.write_atomically(pointer_path(home, facts.model), json.dumps(pointer))
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def discard(writer: ColumnWriter) -> None:
    """Delete what was written without publishing it."""
    writer.close()
    shutil.rmtree(writer.folder, ignore_errors=True)


def load(home: Path, model: str) -> NightArrays | None:
    """The published arrays of a model; None where there are none of this format."""
    try:
        pointer = json.loads(pointer_path(home, model).read_text(encoding="utf-8"))
        if pointer["format"] != FORMAT:
            return None
        stored = pointer["facts"]
        as_of, watermark = datetime.fromisoformat(stored["as_of"]), RunWatermark(**stored["watermark"])
        facts = NightFacts(**{**stored, "as_of": as_of, "watermark": watermark})
        return NightArrays(facts, home / "lookup" / model / pointer["folder"])
    except FileNotFoundError:
        return None


def pointer_path(home: Path, model: str) -> Path:
    """The file that names the folder of a model's arrays."""
    return home / "lookup" / f"{model}.json"


def withdraw(home: Path, model: str) -> None:
    """Publish no arrays of this model any more; questions are then answered without them."""
    pointer_path(home, model).unlink(missing_ok=True)
    shutil.rmtree(home / "lookup" / model, ignore_errors=True)


def erase_customers(home: Path, keys: Collection[int]) -> None:
    """Overwrite the rows of these customers with zeros in all published arrays, and their keys; safe to repeat.

    Arrays that nobody can read any more are deleted: those of killed nights, of earlier ones, and of another format.
    """
    for folder in sorted(path for path in (home / "lookup").glob("*") if path.is_dir()):
        arrays = _load_or_none(home, folder.name)
        _delete_unpublished(folder, arrays)
        if arrays is None:
            pointer_path(home, folder.name).unlink(missing_ok=True)
        else:
            rows = np.array([row for row in arrays.find_rows(sorted(keys)) if row >= 0], np.int64)
            column_files.overwrite_rows(arrays.folder, rows, besides={KEY_COLUMN, POSITION_COLUMN})
            _erase_keys(arrays, keys)


def _load_or_none(home: Path, model: str) -> NightArrays | None:
    try:
        return load(home, model)
    except (ValueError, KeyError, TypeError, OSError):
        return None


def _delete_unpublished(folder: Path, arrays: NightArrays | None) -> None:
    """Delete all arrays of a model but the published ones, and those that a running night is writing."""
    for other in folder.iterdir():
        is_published = arrays is not None and other == arrays.folder
        if not is_published and not _is_being_written(other):
            shutil.rmtree(other, ignore_errors=True)


def _is_being_written(folder: Path) -> bool:
    if not folder.name.startswith(".partial-"):
        return False
    try:
        os.kill(int(folder.name.split("-")[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _erase_keys(arrays: NightArrays, keys: Collection[int]) -> None:
    """Replace each key by the one before it, so that the keys still rise."""
    stored = column_files.map_for_writing(arrays.folder, KEY_COLUMN)
    for index in np.flatnonzero(np.isin(stored, list(keys))).tolist():
        stored[index] = stored[index - 1] if index else np.iinfo(np.int64).min


def _sort_keys(writer: ColumnWriter) -> None:
    """Add the positions of the rows by rising key, and put the keys in that order."""
    writer.flush()
    path = writer.folder / f"{KEY_COLUMN}.bin"
    keys = np.fromfile(path, np.int64) if path.exists() else np.empty(0, np.int64)
    order = np.argsort(keys, kind="stable").astype(np.int64)
    writer.append({POSITION_COLUMN: order})
    keys[order].tofile(path)
