"""Array files and array look-ups that several models share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def write_arrays(folder: Path, **arrays: Any) -> None:
    """Write named arrays to arrays.npz."""
    with (folder / "arrays.npz").open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(folder: Path) -> dict[str, Any]:
    """Read what `write_arrays` wrote; never anything that could run."""
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def find_positions(sorted_keys: Ints, keys: Ints) -> tuple[Ints, Flags]:
    """Where each wanted product stands among rising products, and whether it does."""
    if not len(sorted_keys):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
    if len(keys) > len(sorted_keys):  # then a hash table is worth its making: ten times as fast
        places = pd.Index(sorted_keys).get_indexer(pd.Index(keys))
        return places, places >= 0
    places = np.searchsorted(sorted_keys, keys).clip(max=len(sorted_keys) - 1)
    return places, sorted_keys[places] == keys


def positions_within_rows(rows: Ints) -> Ints:
    """The place of each entry within its row, from 0; entries of a row stand together."""
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    return np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
