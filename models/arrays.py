"""Array files (arrays.npz) and look-ups in sorted key arrays, shared by several models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def write_arrays(folder: Path, **arrays: Any) -> None:
    """Write named arrays to folder/arrays.npz, without pickle."""
    with (folder / "arrays.npz").open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(folder: Path) -> dict[str, Any]:
    """Read the arrays that `write_arrays` wrote, by name; pickled content is refused, so a file can run no code."""
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def find_positions(sorted_keys: Ints, keys: Ints) -> tuple[Ints, Flags]:
    """Find keys in an ascending key array.

    Returns the position of each key in sorted_keys (n,), and whether it is there (n,); positions of other keys are
    meaningless.
    """
    if not len(sorted_keys):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
    if len(keys) > len(sorted_keys):  # a hash table pays off here: ten times as fast
        positions = pd.Index(sorted_keys).get_indexer(pd.Index(keys))
        return positions, positions >= 0
    positions = np.searchsorted(sorted_keys, keys).clip(max=len(sorted_keys) - 1)
    return positions, sorted_keys[positions] == keys


def positions_within_rows(rows: Ints) -> Ints:
    """Number the entries of each row from 0: (n_entries,). Entries of one row must stand together."""
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    return np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
