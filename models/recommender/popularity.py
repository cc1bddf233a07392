"""The popularity baseline."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from models import arrays as models_arrays
from models import base
from models.arrays import Floats, Ints
from models.recommender import purchase_history, ranked_lists
from models.recommender.purchase_history import PurchaseHistory
from models.recommender.ranked_lists import AGAIN, POPULAR, ProductFilter, RankedProducts


@dataclass(frozen=True)
class Bestsellers:
    """All products ever sold, the best seller first, with the share of customers who bought each lately."""

    products: Ints
    shares: Floats

    def lookup_shares(self, products: Ints) -> Floats:
        """The share of each product; 0 for one that never sold."""
        rising, shares = self._by_product
        places, sold = models_arrays.find_positions(rising, products)
        sold_shares = np.zeros(len(products))
        sold_shares[sold] = shares[places[sold]]
        return sold_shares

    @cached_property
    def _by_product(self) -> tuple[Ints, Floats]:
        order = np.argsort(self.products)
        return self.products[order], self.shares[order]

    def rank_for_everyone(self, history: PurchaseHistory, product_filter: ProductFilter, n: int) -> RankedProducts:
        """The n best sellers that a request allows, for everybody alike but for what is barred to them."""
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
        """As many best sellers as each row wants, none of them `taken`, nor on its shelf unless `own`."""
        rows = np.flatnonzero(n_wanted > 0)
        excluded_rows, products = _excluded_pairs(history, product_filter, rows, already_listed, include_owned)
        allowed = np.flatnonzero(product_filter.is_allowed(self.products))
        batches = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        for start in range(0, len(rows), _BATCH_ROWS):
            in_batch = (excluded_rows >= start) & (excluded_rows < start + _BATCH_ROWS)
            batch = rows[start : start + _BATCH_ROWS]
            line, places = self._first_allowed(
                allowed, n_wanted[batch], excluded_rows[in_batch] - start, products[in_batch]
            )
            batches.append((batch[line], places))
        rows, places = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        sources = np.full(len(rows), POPULAR, np.int8)
        return RankedProducts(
            rows, self.products[places], self.shares[places], sources, models_arrays.positions_within_rows(rows)
        )

    def _first_allowed(self, allowed: Ints, n_wanted: Ints, excluded_lines: Ints, products: Ints) -> tuple[Ints, Ints]:
        """The lines and places of as many allowed products as each line wants, without the pairs that are out."""
        depth = (n_wanted + np.bincount(excluded_lines, minlength=len(n_wanted))).max()
        first = allowed[:depth]  # nobody wants any that stands behind so many
        rising = np.argsort(self.products[first])
        places, listed = models_arrays.find_positions(self.products[first][rising], products)
        is_available = np.ones((len(n_wanted), len(first)), bool)
        is_available[excluded_lines[listed], rising[places[listed]]] = False
        is_available &= np.cumsum(is_available, axis=1, dtype=np.int32) <= n_wanted[:, None]
        line, column = np.nonzero(is_available)
        return line, first[column]


def _excluded_pairs(
    history: PurchaseHistory,
    product_filter: ProductFilter,
    rows: Ints,
    already_listed: RankedProducts | None,
    include_owned: bool,
) -> tuple[Ints, Ints]:
    """What not to list: places among the rising rows, and a product each."""
    pairs = [product_filter.excluded_pairs(history)]
    if not include_owned:
        pairs.append((history.rows, history.products))
    if already_listed is not None:
        pairs.append((already_listed.rows, already_listed.products))
    pair_rows, products = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    places, is_requested = models_arrays.find_positions(rows, pair_rows)
    return places[is_requested], products[is_requested]


def rank_bestsellers(frame: pd.DataFrame, *, window_days: int) -> Bestsellers:
    """What sold at the frame's latest moment: by buyers in the last window, then by decayed purchases."""
    latest = rows_at(frame, frame["as_of"].max())
    slowest = purchase_history.weight_column(purchase_history.half_lives(latest)[-1])
    history = purchase_history.read(latest, ["last_days", slowest])
    if not len(history.products):
        raise base.InsufficientData("nobody has bought anything yet; load transactions first")
    products, place = np.unique(history.products, return_inverse=True)
    recent_buyers = np.bincount(place, history.columns["last_days"] <= window_days)
    order = np.lexsort((products, -np.bincount(place, history.columns[slowest]), -recent_buyers))
    return Bestsellers(products[order], recent_buyers[order] / len(history))


def rows_at(frame: pd.DataFrame, cutoff: Any) -> pd.DataFrame:
    """The rows of one moment."""
    rows: pd.DataFrame = frame[frame["as_of"] == cutoff]
    return rows


class Popularity:
    """What sold to most customers lately, for everybody alike."""

    def __init__(self, bestsellers: Bestsellers) -> None:
        self.bestsellers = bestsellers

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: Any = None, *, seed: int = 0, window_days: int = 28) -> Self:
        """Count customers a product over the `window_days` before the latest moment. Needs no label."""
        return cls(rank_bestsellers(frame, window_days=window_days))

    def score(
        self,
        frame: pd.DataFrame,
        n: int = 50,
        lists: Sequence[str] = ranked_lists.LISTS,
        exclude: ranked_lists.Excluded = None,
        only: Collection[int] | None = None,
    ) -> pd.DataFrame:
        """The best sellers for every customer, as `DecayedFrequency.score` gives them."""
        ranked_lists.check_lists(lists)
        history, product_filter = purchase_history.read(frame, []), ProductFilter(exclude, only)
        bestsellers = self.bestsellers
        makers = {
            "any": lambda: bestsellers.rank_for_everyone(history, product_filter, n),
            "again": lambda: rank_own_products(
                history, product_filter, n, bestsellers.lookup_shares(history.products), bestsellers
            ),
            "new": lambda: bestsellers.fill(history, product_filter, np.full(len(history), n)),
        }
        return ranked_lists.to_frame(history, {name: makers[name]() for name in lists})

    def purchase_probabilities(self, frame: pd.DataFrame, products: Collection[int]) -> Floats:
        """P(each customer of the frame buys at least one of these products within the window), (n,)."""
        return ranked_lists.probability_of_any(self.score(frame, lists=("again", "new"), only=products), frame)

    def population_average(self, n: int = 50) -> tuple[Ints, Floats]:
        """The shop's n best sellers: product keys, and the share of customers who bought each lately."""
        return self.bestsellers.products[:n], self.bestsellers.shares[:n]

    @property
    def settings(self) -> dict[str, Any]:
        """What was settled while learning, for the record."""
        return {"products": len(self.bestsellers.products)}

    def save(self, folder: Path) -> None:
        """Write arrays.npz into an existing folder."""
        models_arrays.write_arrays(folder, products=self.bestsellers.products, shares=self.bestsellers.shares)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        stored = models_arrays.read_arrays(folder)
        return cls(Bestsellers(stored["products"], stored["shares"]))


#: So many customers' lists are filled at a time: a flag for each of them and each best seller lies in memory.
_BATCH_ROWS = 2_000


def rank_own_products(
    history: PurchaseHistory, product_filter: ProductFilter, n: int, entry_scores: Floats, bestsellers: Bestsellers
) -> RankedProducts:
    """The n products of each customer's own shelf that are worth most; `worth` is an entry each."""
    is_allowed = product_filter.is_entry_allowed(history)
    rows, products, entry_scores = history.rows[is_allowed], history.products[is_allowed], entry_scores[is_allowed]
    # The same days give the same weight to many products; what more customers buy goes first.
    order, ranks = ranked_lists.top_n(rows, (entry_scores, bestsellers.lookup_shares(products), -products), n)
    sources = np.full(len(order), AGAIN, np.int8)
    return RankedProducts(rows[order], products[order], entry_scores[order], sources, ranks)
