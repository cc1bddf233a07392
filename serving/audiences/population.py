"""Crowd: everybody of whom the last night has figures, with what each allows, in portions."""

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

from customers import consent, profiles
from customers.consent import OPEN_CHANNELS
from features.staples import SHELF
from models.bundle import Champion
from serving import rules
from serving.asked import moment
from serving.desk import Desk

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: So many are read and scored at a time: shelves of all of a large shop would not fit.
PORTION = 5_000
NOT_PROFILED = "they have not allowed profiling"
NOT_ON_CHANNEL = "they have not allowed this channel"


@dataclass(frozen=True)
class Crowd:
    """Who may be asked about: their keys, rising; the moment of their figures; and how many are left out, and why."""

    keys: Ints
    as_of: datetime | None
    left_out: dict[str, int]


@dataclass(frozen=True)
class Found:
    """Everybody who may be asked about, likeliest first: keys, chances, and of the first ones why."""

    keys: Ints
    chances: Floats
    why: Mapping[int, str]
    as_of: datetime | None
    left_out: Mapping[str, int]
    window_days: int | None
    stands_in: bool
    champion: Champion
    notes: list[str] = field(default_factory=list)
    reason: str | None = None


def gather(desk: Desk, channel: str | None) -> Crowd:
    """Everybody with figures who allows profiling and, where one is named, the channel."""
    path = desk.features.folder / "shelf" / "part.parquet"
    if not path.exists():
        return Crowd(np.empty(0, np.int64), None, {})
    told = pq.read_table(path, columns=["customer_key", "event_timestamp"]).to_pandas()
    newest = told["event_timestamp"].max()
    known = profiles.ids_of(desk.shop, told.loc[told["event_timestamp"] == newest, "customer_key"].tolist())
    keys = np.array(sorted(known), np.int64)
    allowed = _among(keys, consent.allowed(desk.shop, keys.tolist(), "profiling"))
    reached = allowed if channel is None else _among(allowed, _open_to(desk, allowed, channel))
    counts = {NOT_PROFILED: len(keys) - len(allowed), NOT_ON_CHANNEL: len(allowed) - len(reached)}
    return Crowd(reached, moment(newest), {reason: count for reason, count in counts.items() if count})


def _open_to(desk: Desk, keys: Ints, channel: str) -> set[int]:
    if channel in OPEN_CHANNELS:
        return set(keys.tolist())
    return {key for key, mine in consent.channels(desk.shop, keys.tolist()).items() if channel in mine}


def _among(keys: Ints, wanted: Collection[int]) -> Ints:
    return keys[np.isin(keys, np.fromiter(wanted, np.int64, len(wanted)))]


def shelves(
    desk: Desk, crowd: Crowd, keys: Ints | None = None, names: Collection[str] | None = None
) -> Iterator[pd.DataFrame]:
    """What they have bought, as a recommender reads it, in portions; of these of them alone, if keys are given.

    With `names`, of the shelf's lists these alone: reading is half of the work.

    The night may have seen sensitive purchases of who has withdrawn that consent since, or of products marked since:
    they are cut out.
    """
    wanted = crowd.keys if keys is None else keys
    path = desk.features.folder / "shelf" / "part.parquet"
    if not len(wanted) or crowd.as_of is None:
        return
    when = ds.field("event_timestamp") == pd.Timestamp(crowd.as_of).as_unit("us")
    without = {"created"} if names is None else {"created", *SHELF} - {*names}
    columns = [name for name in pq.read_schema(path).names if name not in without]
    hidden = desk.goods().sensitive
    sees = consent.allowed(desk.shop, wanted.tolist(), "profiling_sensitive") if hidden else set[int]()
    for batch in ds.dataset(path).to_batches(columns=columns, filter=when, batch_size=PORTION):
        mine = batch.filter(pc.is_in(batch["customer_key"], pa.array(wanted)))
        if mine.num_rows:
            yield _cut(mine.to_pandas().rename(columns={"event_timestamp": "as_of"}), hidden, sees)


def _cut(shelf: pd.DataFrame, hidden: Collection[int], sees: Collection[int]) -> pd.DataFrame:
    """The shelves without these products, but for the customers in `sees`."""
    if not hidden:
        return shelf
    own = rules.bought(shelf)
    guarded = own["product_key"].isin(list(hidden)) & ~own["customer_key"].isin(list(sees))
    rows = own.loc[guarded, "row"].unique()
    if not len(rows):
        return shelf
    stays = [mine.to_numpy() for _, mine in (~guarded)[own["row"].isin(rows)].groupby(own["row"])]
    shelf = shelf.copy()
    for name in (name for name in SHELF if name in shelf):
        lists = shelf[name].to_numpy(copy=True)
        for row, kept in zip(np.sort(rows), stays, strict=True):
            lists[row] = None if lists[row] is None else lists[row][kept]
        shelf[name] = lists
    return shelf


def counted(reasons_: Collection[str]) -> dict[str, int]:
    """How many customers each reason concerns, the commonest first."""
    return dict(Counter(reasons_).most_common())
