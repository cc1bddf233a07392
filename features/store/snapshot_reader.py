"""Reads the features of customers at the moment of a snapshot straight from its files, without a join over time."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds


def read_columns(
    folder: Path, features_by_view: Mapping[str, Sequence[str]], keys: Sequence[int], as_of: datetime
) -> dict[str, Any]:
    """Columns of several views by feature name, (n_keys,) each, in the order of `keys`; missing without a row at as_of.

    Files are sorted by moment and customer: of each, only row groups with that moment and keys in between are read.
    """
    columns: dict[str, Any] = {}
    for view, features in features_by_view.items():
        rows = _rows_at(folder / view / "part.parquet", features, keys, as_of)
        columns |= {name: rows[name].to_pandas().to_numpy() for name in features}
    return columns


def _rows_at(path: Path, features: Sequence[str], keys: Sequence[int], as_of: datetime) -> pa.Table:
    """The features of a view at as_of, a row per key, null where there is none."""
    table = ds.dataset(path)
    moment = pa.scalar(pd.Timestamp(as_of).tz_convert("UTC"), table.schema.field("event_timestamp").type)
    key = ds.field("customer_key")
    selected = (ds.field("event_timestamp") == moment) & (key >= min(keys)) & (key <= max(keys))
    rows = table.to_table(columns=["customer_key", *features], filter=selected)
    positions = pd.Index(rows["customer_key"].to_numpy()).get_indexer(pd.Index(np.asarray(keys, np.int64)))
    return rows.take(pa.array(positions, pa.int64(), mask=positions < 0))
