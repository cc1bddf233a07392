"""Frames: what Feast answers, laid out in columns for a model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

#: Where Feast keeps a list, by what it holds.
LISTS = {
    "int64": "int64_list_val",
    "float32": "float_list_val",
    "float64": "double_list_val",
    "string": "string_list_val",
}


def frame(keys: pd.DataFrame, columns: dict[str, Any], kinds: dict[str, str | None]) -> pd.DataFrame:
    """Keys and features side by side: numbers as one float64 block, lists as arrays or None."""
    numbers = [name for name, element in kinds.items() if element is None]
    block = np.array([columns[name] for name in numbers], dtype="float64").reshape(len(numbers), len(keys)).T
    lists = {name: _arrays(columns[name], element) for name, element in kinds.items() if element is not None}
    parts = [keys, pd.DataFrame(block, columns=numbers), pd.DataFrame(lists, index=keys.index)]
    return pd.concat(parts, axis=1)[[*keys.columns, *kinds]]


def _arrays(column: Sequence[Any], element: str) -> np.ndarray:
    arrays = np.empty(len(column), dtype=object)
    kind = "object" if element == "string" else element
    for row, each in enumerate(column):
        arrays[row] = None if _missing(each) else np.asarray(each, dtype=kind)
    return arrays


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def element(kind: Any) -> str | None:
    """What a feature's list holds, in numpy's words; None for a plain number."""
    base = getattr(kind, "base_type", None)
    return None if base is None else base.name.lower()


def unpacked(values: Sequence[Any], element: str | None) -> list[Any]:
    """The values that Feast serves of one feature: numbers, or lists."""
    if element is None:
        return [value.double_val if value.HasField("double_val") else np.nan for value in values]
    name = LISTS[element]
    return [getattr(value, name).val if value.HasField(name) else None for value in values]


def newest(times: Sequence[Sequence[Any]], rows: int) -> pd.Series:
    """The newest of several columns of times, for each row; a time of 0 is one that Feast does not know."""
    micros = [[time.seconds * 1_000_000 + time.nanos // 1_000 for time in column] for column in times]
    newest = np.max(micros, axis=0) if micros else np.zeros(rows, dtype="int64")
    known = pd.Series(newest, dtype="int64").where(newest > 0)
    return pd.to_datetime(known.astype("Int64"), unit="us", utc=True).dt.as_unit("us")
