"""Reads snapshots straight from their files: which moments they have, and the features of customers at one of them."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

#: Customers whose lists are held at once.
BATCH_SIZE = 5_000


class NoSnapshot(LookupError):
    """There is no snapshot to copy into the online store."""


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


def latest_rows(path: Path, as_of: datetime) -> tuple[datetime | None, int]:
    """The latest moment of a snapshot not after as_of, and its number of rows; None and 0 for an empty one.

    Raises NoSnapshot where there is none, or none that old.
    """
    if not path.exists():
        raise NoSnapshot(f"there is no snapshot at {path}; write one first: regulars run")
    times = pq.read_table(path, columns=["event_timestamp"])["event_timestamp"]
    if not len(times):
        return None, 0
    times = times.filter(pc.less_equal(times, pc.cast(as_of.astimezone(UTC), times.type)))
    if not len(times):
        raise NoSnapshot(f"no snapshot in {path} is as old as {as_of}; write one first: regulars run")
    latest = pc.max(times)
    return latest.as_py(), int(pc.sum(pc.equal(times, latest)).as_py())


def iter_rows_at(path: Path, at: datetime, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Rows of a snapshot at one of its moments, these columns of at most BATCH_SIZE customers at a time."""
    is_then = ds.field("event_timestamp") == pa.scalar(at, pa.timestamp("us", "UTC"))
    for batch in ds.dataset(path).to_batches(columns=list(columns), filter=is_then, batch_size=BATCH_SIZE,
                                             batch_readahead=1, fragment_readahead=1):  # fmt: skip
        if len(batch):
            yield batch.to_pandas()


def latest_cutoff(path: Path) -> datetime | None:
    """The latest event_timestamp of a snapshot, from the statistics of its row groups; None for an empty one."""
    metadata = pq.read_metadata(path)
    position = metadata.schema.names.index("event_timestamp")
    groups = (metadata.row_group(number).column(position).statistics for number in range(metadata.num_row_groups))
    return max((group.max for group in groups if group is not None and group.has_min_max), default=None)


def sample_customers(path: Path, as_of: datetime, size: int) -> list[int]:
    """Keys of some of the customers of a snapshot at as_of, evenly spaced; fewer where there are fewer."""
    instant = pa.scalar(as_of.astimezone(UTC), pa.timestamp("us", "UTC"))
    is_latest = pc.field("event_timestamp") == instant
    keys = pq.read_table(path, columns=["customer_key"], filters=is_latest)["customer_key"].to_numpy()
    positions = np.unique(np.linspace(0, max(len(keys) - 1, 0), min(size, len(keys))).astype(np.int64))
    return [int(key) for key in keys[positions]]


def _rows_at(path: Path, features: Sequence[str], keys: Sequence[int], as_of: datetime) -> pa.Table:
    """The features of a view at as_of, a row per key, null where there is none."""
    table = ds.dataset(path)
    moment = pa.scalar(pd.Timestamp(as_of).tz_convert("UTC"), table.schema.field("event_timestamp").type)
    key = ds.field("customer_key")
    selected = (ds.field("event_timestamp") == moment) & (key >= min(keys)) & (key <= max(keys))
    rows = table.to_table(columns=["customer_key", *features], filter=selected)
    positions = pd.Index(rows["customer_key"].to_numpy()).get_indexer(pd.Index(np.asarray(keys, np.int64)))
    return rows.take(pa.array(positions, pa.int64(), mask=positions < 0))
