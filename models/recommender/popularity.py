"""Best sellers, and the popularity baseline that ranks them for every customer.

It answers where there is too little data to train on, and the recommender must beat it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from models import base
from models.arrays import Floats, Ints, find_positions, positions_within_rows, read_arrays, write_arrays
from models.recommender import purchase_history, ranked_lists
from models.recommender.purchase_history import PurchaseHistory
from models.recommender.ranked_lists import AGAIN, POPULAR, ProductFilter, RankedProducts


@dataclass(frozen=True)
class Bestsellers:
    """All products ever sold, best first, and share of customers who bought each in the last window, (n_products,)."""

    products: Ints
    shares: Floats

    def lookup_shares(self, products: Ints) -> Floats:
        """The share of each product; 0 for one that never sold: (n,)."""
        sorted_products, shares = self._by_product
        positions, has_sold = find_positions(sorted_products, products)
        sold_shares = np.zeros(len(products))
        sold_shares[has_sold] = shares[positions[has_sold]]
        return sold_shares

    @cached_property
    def _by_product(self) -> tuple[Ints, Floats]:
        order = np.argsort(self.products)
        return self.products[order], self.shares[order]

    def rank_for_everyone(self, history: PurchaseHistory, product_filter: ProductFilter, n: int) -> RankedProducts:
        """Rank the n best sellers that the filter allows; customers differ only in what is excluded for each."""
        return self.fill(history, product_filter, np.full(len(history), n), include_owned=True)

    def fill(
        self,
        history: PurchaseHistory,
        product_filter: ProductFilter,
        n_wanted: Ints,
        already_listed: RankedProducts | None = None,
        *,
        include_owned: bool = False,
    ) -> RankedProducts:
        """Rank up to n_wanted (n_customers,) best sellers for each customer, without those already listed.

        Products of the customer's own history are left out unless include_owned is set.
        """
        rows = np.flatnonzero(n_wanted > 0)
        excluded_rows, products = _excluded_pairs(history, product_filter, rows, already_listed, include_owned)
        allowed = np.flatnonzero(product_filter.is_allowed(self.products))
        batches = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        for start in range(0, len(rows), _BATCH_ROWS):
            in_batch = (excluded_rows >= start) & (excluded_rows < start + _BATCH_ROWS)
            batch = rows[start : start + _BATCH_ROWS]
            batch_row, positions = self._first_allowed(
                allowed, n_wanted[batch], excluded_rows[in_batch] - start, products[in_batch]
            )
            batches.append((batch[batch_row], positions))
        rows, positions = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        sources = np.full(len(rows), POPULAR, np.int8)
        return RankedProducts(
            rows, self.products[positions], self.shares[positions], sources, positions_within_rows(rows)
        )

    def _first_allowed(
        self, allowed: Ints, n_wanted: Ints, excluded_batch_rows: Ints, products: Ints
    ) -> tuple[Ints, Ints]:
        """Batch rows and positions of each row's first n_wanted allowed products, without the excluded pairs."""
        depth = (n_wanted + np.bincount(excluded_batch_rows, minlength=len(n_wanted))).max()
        front = allowed[:depth]  # no row can need a product beyond this depth
        by_key = np.argsort(self.products[front])
        positions, is_near = find_positions(self.products[front][by_key], products)
        is_available = np.ones((len(n_wanted), len(front)), bool)
        is_available[excluded_batch_rows[is_near], by_key[positions[is_near]]] = False
        is_available &= np.cumsum(is_available, axis=1, dtype=np.int32) <= n_wanted[:, None]
        batch_row, column = np.nonzero(is_available)
        return batch_row, front[column]


def _excluded_pairs(
    history: PurchaseHistory,
    product_filter: ProductFilter,
    rows: Ints,
    already_listed: RankedProducts | None,
    include_owned: bool,
) -> tuple[Ints, Ints]:
    """Pairs that must not be listed: positions in the ascending `rows`, and a product each."""
    pairs = [product_filter.excluded_pairs(history)]
    if not include_owned:
        pairs.append((history.rows, history.products))
    if already_listed is not None:
        pairs.append((already_listed.rows, already_listed.products))
    pair_rows, products = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    positions, is_requested = find_positions(rows, pair_rows)
    return positions[is_requested], products[is_requested]


def rank_bestsellers(frame: pd.DataFrame, *, window_days: int) -> Bestsellers:
    """Rank products at the frame's latest cutoff: by buyers in the last window, then by decayed purchases.

    frame: a row per customer and cutoff, with columns customer_key, as_of, product_keys, last_days and
    weights_<days>d. Raises InsufficientData where nothing was ever bought.
    """
    latest = rows_at(frame, frame["as_of"].max())
    longest_weight = purchase_history.weight_column(purchase_history.half_lives(latest)[-1])
    history = purchase_history.read(latest, ["last_days", longest_weight])
    if not len(history.products):
        raise base.InsufficientData("nobody has bought anything yet; load transactions first")
    products, position = np.unique(history.products, return_inverse=True)
    recent_buyers = np.bincount(position, history.columns["last_days"] <= window_days)
    order = np.lexsort((products, -np.bincount(position, history.columns[longest_weight]), -recent_buyers))
    return Bestsellers(products[order], recent_buyers[order] / len(history))


def rows_at(frame: pd.DataFrame, cutoff: Any) -> pd.DataFrame:
    """The rows of one cutoff, from column as_of."""
    rows: pd.DataFrame = frame[frame["as_of"] == cutoff]
    return rows


class Popularity:
    """Products that most customers bought in the last window, the same for every customer."""

    def __init__(self, bestsellers: Bestsellers) -> None:
        self.bestsellers = bestsellers

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: Any = None, *, seed: int = 0, window_days: int = 28) -> Self:
        """Count buyers of each product in window_days before the latest cutoff; columns as in `rank_bestsellers`."""
        return cls(rank_bestsellers(frame, window_days=window_days))

    def score(
        self,
        frame: pd.DataFrame,
        n: int = 50,
        lists: Sequence[str] = ranked_lists.LISTS,
        exclude: ranked_lists.Excluded = None,
        only: Collection[int] | None = None,
    ) -> pd.DataFrame:
        """Rank the best sellers for every customer: arguments and columns as in `DecayedFrequency.score`."""
        ranked_lists.check_lists(lists)
        history, product_filter = purchase_history.read(frame, []), ProductFilter(exclude, only)
        bestsellers = self.bestsellers
        builders = {
            "any": lambda: bestsellers.rank_for_everyone(history, product_filter, n),
            "again": lambda: rank_own_products(
                history, product_filter, n, bestsellers.lookup_shares(history.products), bestsellers
            ),
            "new": lambda: bestsellers.fill(history, product_filter, np.full(len(history), n)),
        }
        return ranked_lists.to_frame(history, {name: builders[name]() for name in lists})

    def purchase_probabilities(self, frame: pd.DataFrame, products: Collection[int]) -> Floats:
        """P(each customer of the frame buys at least one of these products within the window): (n,)."""
        return ranked_lists.probability_of_any(self.score(frame, lists=("again", "new"), only=products), frame)

    def population_average(self, n: int = 50) -> tuple[Ints, Floats]:
        """The shop's n best sellers: keys, and share of customers who bought each in the last window, (n,) each."""
        return self.bestsellers.products[:n], self.bestsellers.shares[:n]

    @property
    def settings(self) -> dict[str, Any]:
        """Values that `fit` has chosen, for the training record."""
        return {"products": len(self.bestsellers.products)}

    def save(self, folder: Path) -> None:
        """Write arrays.npz into an existing folder."""
        write_arrays(folder, products=self.bestsellers.products, shares=self.bestsellers.shares)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        stored = read_arrays(folder)
        return cls(Bestsellers(stored["products"], stored["shares"]))


#: Customers whose lists are filled at once: a flag for each of them and each best seller is in memory.
_BATCH_ROWS = 2_000


def rank_own_products(
    history: PurchaseHistory, product_filter: ProductFilter, n: int, entry_scores: Floats, bestsellers: Bestsellers
) -> RankedProducts:
    """Rank the n products of each customer's own history that have the highest entry_scores (n_entries,)."""
    is_allowed = product_filter.is_entry_allowed(history)
    rows, products, entry_scores = history.rows[is_allowed], history.products[is_allowed], entry_scores[is_allowed]
    # Many products have equal weights, from the same purchase days; the one that more customers buy goes first.
    order, ranks = ranked_lists.top_n(rows, (entry_scores, bestsellers.lookup_shares(products), -products), n)
    sources = np.full(len(order), AGAIN, np.int8)
    return RankedProducts(rows[order], products[order], entry_scores[order], sources, ranks)
