"""Exploring: a share of the places in a list goes to products from below it, to learn what else a customer likes.

Who draws again from the same seed draws the same, asked alone or among others, by night or at the door.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving.rules import EXPLORED

Ints = NDArray[np.int64]
Draws = NDArray[np.uint64]
#: Products are drawn from so many places below the end of a list, for each place of the list.
POOL = 4
WITHIN = ["customer_key", "list"]


def seeds(shelf: pd.DataFrame, seed: int | None = None) -> pd.Series:
    """What each customer's draw begins with: the seed, else a number that changes when their figures do."""
    moments = pd.to_datetime(shelf["as_of"], utc=True).dt.tz_localize(None).astype("datetime64[us]").astype(np.int64)
    begins = moments.to_numpy() if seed is None else np.full(len(shelf), seed, np.int64)
    return pd.Series(begins, shelf["customer_key"].to_numpy(np.int64))


def explored(listed: pd.DataFrame, share: float, begins: pd.Series, n: int) -> pd.DataFrame:
    """The first n of each list, with every so many places given to a product drawn from below.

    `listed` is best first in each list, longer than n where there is more, with `pinned`, who stay where they are.
    """
    place = listed.groupby(WITHIN, sort=False).cumcount().to_numpy()
    slots = np.flatnonzero(np.diff(np.floor(np.arange(n + 1) * share + 1e-9))) if share else np.empty(0, np.int64)
    if not len(slots):
        return listed[place < n].assign(rank=place[place < n] + 1)
    group = listed.groupby(WITHIN, sort=False).ngroup().to_numpy()
    pool = (place >= n) & (place < n * (1 + POOL))
    pins = np.bincount(group, listed["pinned"])
    below = np.bincount(group[pool], minlength=len(pins))
    # Pins stay first: only the places behind them are free to be drawn for.
    free = len(slots) - np.searchsorted(slots, pins)
    drawn = np.minimum(free, below).astype(np.int64)
    kept = place < n - drawn[group]
    ranks = _left(slots, n)[drawn[group[kept]], place[kept]]
    top = listed[kept].assign(rank=ranks + 1)
    at = np.flatnonzero(pool)[np.lexsort((_drawn(listed[pool], begins), group[pool]))]
    nth = listed.iloc[at].groupby(WITHIN, sort=False).cumcount().to_numpy()
    at, nth = at[nth < drawn[group[at]]], nth[nth < drawn[group[at]]]
    rank = slots[len(slots) - drawn[group[at]] + nth]
    return pd.concat([top, listed.iloc[at].assign(rank=rank + 1, source=EXPLORED)], ignore_index=True)


def _left(slots: Ints, n: int) -> Ints:
    """Row d: the places that are left, in order, where the last d slots are taken."""
    left = np.zeros((len(slots) + 1, n), np.int64)
    for taken in range(len(slots) + 1):
        free = np.setdiff1d(np.arange(n), slots[len(slots) - taken :])
        left[taken, : len(free)] = free
    return left


def _drawn(pool: pd.DataFrame, begins: pd.Series) -> Draws:
    """A number a product and customer, by chance, and the same whenever it is drawn again from the same seed."""
    customers = pool["customer_key"].to_numpy(np.int64)
    drawn = np.zeros(len(pool), np.uint64)
    for part in (begins.reindex(customers).to_numpy(np.int64), customers, pool["product_key"].to_numpy(np.int64)):
        drawn = _mixed_up(drawn ^ part.astype(np.uint64))
    return drawn


def _mixed_up(number: Draws) -> Draws:
    """SplitMix64 (Steele, Lea & Flood 2014): every bit of the number moves half of the others."""
    with np.errstate(over="ignore"):
        number = number + np.uint64(0x9E3779B97F4A7C15)
        number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return number ^ (number >> np.uint64(31))
