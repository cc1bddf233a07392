"""Population: the customers with features of the last nightly run and the needed consents, read in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from customers.people import lookup
from customers.privacy import consents
from customers.privacy.consents import CONSENT_FREE_CHANNELS
from features.families.stored_values import PRODUCT_LIST_TYPES
from models.registry.bundle import Champion
from serving.api.requested_customers import to_datetime
from serving.recommendations import merchandising
from serving.runtime import ServerRuntime

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Customers read and scored at a time: the purchase histories of a large shop would not fit into memory.
BATCH_SIZE = 5_000
PROFILING_NOT_ALLOWED = "they have not allowed profiling"
CHANNEL_NOT_ALLOWED = "they have not allowed this channel"


@dataclass(frozen=True)
class Population:
    """The eligible customers: keys (n,), ascending; as_of of their features; and how many are left out, by reason."""

    keys: Ints
    as_of: datetime | None
    excluded_counts: dict[str, int]


@dataclass(frozen=True)
class RankedCustomers:
    """The eligible customers, most probable first: keys and probabilities, both (n,), and reasons of the first ones."""

    keys: Ints
    probabilities: Floats
    reason_by_key: Mapping[int, str]
    as_of: datetime | None
    excluded_counts: Mapping[str, int]
    window_days: int | None
    is_fallback: bool
    champion: Champion
    notes: list[str] = field(default_factory=list)
    empty_reason: str | None = None


def load_population(runtime: ServerRuntime, channel: str | None) -> Population:
    """The customers with features of the last nightly run who allow profiling and, if one is given, the channel."""
    path = runtime.features.folder / "shelf" / "part.parquet"
    if not path.exists():
        return Population(np.empty(0, np.int64), None, {})
    table = pq.read_table(path, columns=["customer_key", "event_timestamp"]).to_pandas()
    latest_at = table["event_timestamp"].max()
    id_by_key = lookup.find_ids(runtime.shop, table.loc[table["event_timestamp"] == latest_at, "customer_key"].tolist())
    keys = np.array(sorted(id_by_key), np.int64)
    allowed = _intersect(keys, consents.allowed_customers(runtime.shop, keys.tolist(), "profiling"))
    contactable = allowed if channel is None else _intersect(allowed, _contactable_on(runtime, allowed, channel))
    counts = {PROFILING_NOT_ALLOWED: len(keys) - len(allowed), CHANNEL_NOT_ALLOWED: len(allowed) - len(contactable)}
    return Population(contactable, to_datetime(latest_at), {reason: count for reason, count in counts.items() if count})


def _contactable_on(runtime: ServerRuntime, keys: Ints, channel: str) -> set[int]:
    if channel in CONSENT_FREE_CHANNELS:
        return set(keys.tolist())
    return {
        key for key, channels in consents.allowed_channels(runtime.shop, keys.tolist()).items() if channel in channels
    }


def _intersect(keys: Ints, selected: Collection[int]) -> Ints:
    return keys[np.isin(keys, np.fromiter(selected, np.int64, len(selected)))]


def iter_histories(
    runtime: ServerRuntime,
    population: Population,
    keys: Ints | None = None,
    list_columns: Collection[str] | None = None,
) -> Iterator[pd.DataFrame]:
    """Yield the purchase histories of the population, or of these keys in it, in batches of at most BATCH_SIZE rows.

    A row per customer, with the columns customer_key, as_of and the list columns of features.families.product_history:
    with `list_columns`, those only, because reading is half of the work. Sensitive purchases are removed for customers
    without that consent: it may have been revoked, or a product marked, since the features were written.
    """
    selected_keys = population.keys if keys is None else keys
    path = runtime.features.folder / "shelf" / "part.parquet"
    if not len(selected_keys) or population.as_of is None:
        return
    is_latest = ds.field("event_timestamp") == pd.Timestamp(population.as_of).as_unit("us")
    skipped = {"created"} if list_columns is None else {"created", *PRODUCT_LIST_TYPES} - {*list_columns}
    columns = [name for name in pq.read_schema(path).names if name not in skipped]
    hidden = runtime.get_inventory().sensitive_products
    consenting = (
        consents.allowed_customers(runtime.shop, selected_keys.tolist(), "profiling_sensitive")
        if hidden
        else set[int]()
    )
    for batch in ds.dataset(path).to_batches(columns=columns, filter=is_latest, batch_size=BATCH_SIZE):
        selected = batch.filter(pc.is_in(batch["customer_key"], pa.array(selected_keys)))
        if selected.num_rows:
            yield _drop_sensitive(selected.to_pandas().rename(columns={"event_timestamp": "as_of"}), hidden, consenting)


def _drop_sensitive(history: pd.DataFrame, hidden: Collection[int], consenting: Collection[int]) -> pd.DataFrame:
    """The histories without the `hidden` products, except for the customers in `consenting`."""
    if not hidden:
        return history
    purchases = merchandising.flatten_purchases(history)
    is_removed = purchases["product_key"].isin(list(hidden)) & ~purchases["customer_key"].isin(list(consenting))
    affected_rows = purchases.loc[is_removed, "row"].unique()
    if not len(affected_rows):
        return history
    keep_masks = [
        mask.to_numpy() for _, mask in (~is_removed)[purchases["row"].isin(affected_rows)].groupby(purchases["row"])
    ]
    history = history.copy()
    for name in (name for name in PRODUCT_LIST_TYPES if name in history):
        lists = history[name].to_numpy(copy=True)
        for row, keep_mask in zip(np.sort(affected_rows), keep_masks, strict=True):
            lists[row] = None if lists[row] is None else lists[row][keep_mask]
        history[name] = lists
    return history


def count_reasons(reasons: Collection[str]) -> dict[str, int]:
    """The number of customers by reason, most frequent first."""
    return dict(Counter(reasons).most_common())
