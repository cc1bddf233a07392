"""Exploration: a share of the places in a list goes to products ranked below it, to learn what else a customer likes.

The draw depends on the seed, the customer and the product only: it is the same for a customer alone or among others,
online and in the nightly run.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving.recommendations.merchandising import EXPLORED

Ints = NDArray[np.int64]
Draws = NDArray[np.uint64]
#: Products are drawn from the ranks below a list, this many for each place of the list.
POOL_FACTOR = 4
LIST_KEY_COLUMNS = ["customer_key", "list"]


def draw_seeds(history: pd.DataFrame, seed: int | None = None) -> pd.Series:
    """The seed of each customer's draw, by customer_key: the given one, else their as_of, which features change.

    history: columns customer_key, as_of.
    """
    as_of_micros = (
        pd.to_datetime(history["as_of"], utc=True).dt.tz_localize(None).astype("datetime64[us]").astype(np.int64)
    )
    seed_values = as_of_micros.to_numpy() if seed is None else np.full(len(history), seed, np.int64)
    return pd.Series(seed_values, history["customer_key"].to_numpy(np.int64))


def explore_lists(listed: pd.DataFrame, share: float, seed_by_key: pd.Series, n: int) -> pd.DataFrame:
    """The first n of each list, where `share` of the places, evenly spaced, goes to products drawn from below.

    listed: columns customer_key, list, product_key, pinned and others, best first in each list and longer than n where
    possible. Returns them with the columns rank (from 1) and source set. Pinned products keep their places.
    """
    position = listed.groupby(LIST_KEY_COLUMNS, sort=False).cumcount().to_numpy()
    slots = np.flatnonzero(np.diff(np.floor(np.arange(n + 1) * share + 1e-9))) if share else np.empty(0, np.int64)
    if not len(slots):
        return listed[position < n].assign(rank=position[position < n] + 1)
    group = listed.groupby(LIST_KEY_COLUMNS, sort=False).ngroup().to_numpy()
    is_in_pool = (position >= n) & (position < n * (1 + POOL_FACTOR))
    pin_counts = np.bincount(group, listed["pinned"])
    pool_sizes = np.bincount(group[is_in_pool], minlength=len(pin_counts))
    # Pinned products stay first: only the places behind them are given to drawn products.
    free_slots = len(slots) - np.searchsorted(slots, pin_counts)
    draw_counts = np.minimum(free_slots, pool_sizes).astype(np.int64)
    is_top = position < n - draw_counts[group]
    top_ranks = _free_ranks(slots, n)[draw_counts[group[is_top]], position[is_top]]
    top = listed[is_top].assign(rank=top_ranks + 1)
    drawn_rows = np.flatnonzero(is_in_pool)[
        np.lexsort((_random_order(listed[is_in_pool], seed_by_key), group[is_in_pool]))
    ]
    draw_positions = listed.iloc[drawn_rows].groupby(LIST_KEY_COLUMNS, sort=False).cumcount().to_numpy()
    drawn_rows, draw_positions = (
        drawn_rows[draw_positions < draw_counts[group[drawn_rows]]],
        draw_positions[draw_positions < draw_counts[group[drawn_rows]]],
    )
    drawn_ranks = slots[len(slots) - draw_counts[group[drawn_rows]] + draw_positions]
    return pd.concat([top, listed.iloc[drawn_rows].assign(rank=drawn_ranks + 1, source=EXPLORED)], ignore_index=True)


def _free_ranks(slots: Ints, n: int) -> Ints:
    """Row d: the places that remain, in order, when the last d slots are taken."""
    free_ranks = np.zeros((len(slots) + 1, n), np.int64)
    for taken_count in range(len(slots) + 1):
        free = np.setdiff1d(np.arange(n), slots[len(slots) - taken_count :])
        free_ranks[taken_count, : len(free)] = free
    return free_ranks


def _random_order(pool: pd.DataFrame, seed_by_key: pd.Series) -> Draws:
    """A pseudo-random number per row of the pool, which depends on seed, customer and product only."""
    customers = pool["customer_key"].to_numpy(np.int64)
    random_keys = np.zeros(len(pool), np.uint64)
    for part in (seed_by_key.reindex(customers).to_numpy(np.int64), customers, pool["product_key"].to_numpy(np.int64)):
        random_keys = _splitmix64(random_keys ^ part.astype(np.uint64))
    return random_keys


def _splitmix64(number: Draws) -> Draws:
    """SplitMix64 (Steele, Lea & Flood 2014): every bit of the number moves half of the others."""
    with np.errstate(over="ignore"):
        number = number + np.uint64(0x9E3779B97F4A7C15)
        number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return number ^ (number >> np.uint64(31))
