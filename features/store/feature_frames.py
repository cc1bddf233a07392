"""Answers of Feast as data frames for a model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def build_frame(keys: pd.DataFrame, columns: dict[str, Any], element_types: dict[str, str | None]) -> pd.DataFrame:
    """Frame of keys and features: the columns of `keys`, then numbers as float64, and lists as arrays or None."""
    numbers = [name for name, element_type in element_types.items() if element_type is None]
    block = np.array([columns[name] for name in numbers], dtype="float64").reshape(len(numbers), len(keys)).T
    lists = {
        name: _to_arrays(columns[name], element_type)
        for name, element_type in element_types.items()
        if element_type is not None
    }
    parts = [keys, pd.DataFrame(block, columns=numbers), pd.DataFrame(lists, index=keys.index)]
    return pd.concat(parts, axis=1)[[*keys.columns, *element_types]]


def _to_arrays(column: Sequence[Any], element_type: str) -> np.ndarray:
    arrays = np.empty(len(column), dtype=object)
    dtype = "object" if element_type == "string" else element_type
    for row, each in enumerate(column):
        arrays[row] = None if _is_missing(each) else np.asarray(each, dtype=dtype)
    return arrays


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def list_element_type(feature_type: Any) -> str | None:
    """Element type of a list feature, as a name of numpy; None for a plain number."""
    base = getattr(feature_type, "base_type", None)
    return None if base is None else base.name.lower()


def newest_timestamps(micros: Sequence[Sequence[int]], rows: int) -> pd.Series:
    """Newest of several columns of microseconds since 1970, per row, (n_rows,) in UTC; NaT where all are 0."""
    newest_micros = np.max(micros, axis=0) if micros else np.zeros(rows, dtype="int64")
    valid_micros = pd.Series(newest_micros, dtype="int64").where(newest_micros > 0)
    return pd.to_datetime(valid_micros.astype("Int64"), unit="us", utc=True).dt.as_unit("us")
