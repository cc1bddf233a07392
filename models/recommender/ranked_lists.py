"""Ranked lists of products, and the filter of products that a list may hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import arrays
from models.arrays import Flags, Floats, Ints
from models.recommender.purchase_history import PurchaseHistory, WindowPurchases

#: Products to leave out: the same for all customers, or by customer key.
Excluded = Collection[int] | Mapping[int, Collection[int]] | None

LISTS = ("any", "again", "new")
SOURCES = ("again", "new", "popular")
AGAIN, NEW, POPULAR = range(3)


@dataclass(frozen=True)
class RankedProducts:
    """Ranked products as flat arrays (n_entries,): those of one customer stand together, best first, from rank 0.

    `sources` are positions in SOURCES.
    """

    rows: Ints
    products: Ints
    scores: Floats
    sources: NDArray[np.int8]
    ranks: Ints

    def take(self, mask: Flags) -> RankedProducts:
        """The entries where mask (n_entries,) is true, with their old ranks."""
        rows, products, scores = self.rows[mask], self.products[mask], self.scores[mask]
        return RankedProducts(rows, products, scores, self.sources[mask], self.ranks[mask])

    def calibrate(self, curve: Callable[[Floats], Floats]) -> RankedProducts:
        """The same entries, with raw scores (n_entries,) replaced by the curve's probabilities."""
        return replace(self, scores=curve(self.scores))


def empty_ranking() -> RankedProducts:
    """A ranking without any entry."""
    empty = np.empty(0, np.int64)
    return RankedProducts(empty, empty, np.empty(0), np.empty(0, np.int8), empty)


def top_n(rows: Ints, rank_by: Sequence[NDArray[Any]], n: int) -> tuple[Ints, Ints]:
    """Positions and ranks of the n best entries of every row: (n_top,) each.

    rows and each array of rank_by are (n_entries,). Highest rank_by[0] first; ties are broken by the arrays after it.
    """
    candidates = np.flatnonzero(_is_near_top(rows, rank_by[0], n))
    order = candidates[np.lexsort((*(-values[candidates] for values in reversed(rank_by)), rows[candidates]))]
    ranks = arrays.positions_within_rows(rows[order])
    return order[ranks < n], ranks[ranks < n]


def _is_near_top(rows: Ints, scores: NDArray[Any], n: int) -> Flags:
    # An entry with a lower score than its row's nth cannot be among the n best, so few ties need to be broken.
    order = np.lexsort((-scores, rows))
    nth = order[arrays.positions_within_rows(rows[order]) == n - 1]
    thresholds = np.full(rows.max(initial=-1) + 1, -np.inf)
    thresholds[rows[nth]] = scores[nth]
    return np.asarray(~(scores < thresholds[rows]))


def merge_lists(lists: Sequence[RankedProducts], n: int) -> RankedProducts:
    """Merge lists by score; among equal scores the earlier list comes first."""
    rows, products, scores, sources, ranks = (
        np.concatenate([getattr(ranking, name) for ranking in lists])
        for name in ("rows", "products", "scores", "sources", "ranks")
    )
    list_number = np.repeat(np.arange(len(lists)), [len(ranking.rows) for ranking in lists])
    order, merged_ranks = top_n(rows, (scores, -list_number, -ranks), n)
    return RankedProducts(rows[order], products[order], scores[order], sources[order], merged_ranks)


def append_list(first: RankedProducts, second: RankedProducts, n: int) -> RankedProducts:
    """One list with `second` behind `first`; scores are lowered where one would be higher than the one before it."""
    order = np.lexsort((np.repeat([0, 1], [len(first.rows), len(second.rows)]), _concatenated(first, second, "rows")))
    rows, products, scores, sources = (
        _concatenated(first, second, name)[order] for name in ("rows", "products", "scores", "sources")
    )
    ranks = arrays.positions_within_rows(rows)
    return RankedProducts(rows, products, _non_increasing(scores, ranks), sources, ranks).take(ranks < n)


def _concatenated(first: RankedProducts, second: RankedProducts, name: str) -> NDArray[Any]:
    return np.concatenate([getattr(first, name), getattr(second, name)])


def _non_increasing(scores: Floats, ranks: Ints) -> Floats:
    # One running minimum over all rows: each row is shifted above the rows that follow it.
    lift = -2.0 * np.cumsum(ranks == 0)
    return np.minimum.accumulate(scores + lift) - lift if len(scores) else scores


class ProductFilter:
    """Which products a request allows: none of `exclude` and, where `only` is given, only those."""

    def __init__(self, exclude: Excluded = None, only: Collection[int] | None = None) -> None:
        self._customer_exclusions = exclude if isinstance(exclude, Mapping) else {}
        self._exclusions = _sorted_keys(() if exclude is None or isinstance(exclude, Mapping) else exclude)
        self._only = None if only is None else _sorted_keys(only)

    def is_allowed(self, products: Ints) -> Flags:
        """Whether each product is allowed, apart from exclusions for single customers: (n,)."""
        allowed = ~np.isin(products, self._exclusions) if len(self._exclusions) else np.ones(len(products), bool)
        return allowed if self._only is None else allowed & np.isin(products, self._only)

    def excluded_for(self, customer: int) -> Ints:
        """Ascending keys of the products excluded for this customer only: (n,)."""
        return _sorted_keys(self._customer_exclusions.get(int(customer), ()))

    def is_entry_allowed(self, history: PurchaseHistory) -> Flags:
        """Whether each entry of the history is allowed for its customer: (n_entries,)."""
        allowed = self.is_allowed(history.products)
        for row in self._rows_with_exclusions(history):
            span = slice(history.bounds[row], history.bounds[row + 1])
            allowed[span] &= ~np.isin(history.products[span], self.excluded_for(history.customers[row]))
        return allowed

    def excluded_pairs(self, history: PurchaseHistory) -> tuple[Ints, Ints]:
        """Exclusions for single customers: rows of the history, and a product each, (n_pairs,) each."""
        rows = self._rows_with_exclusions(history)
        products = [self.excluded_for(history.customers[row]) for row in rows]
        return np.repeat(rows, [len(excluded) for excluded in products]), np.concatenate(
            [np.empty(0, np.int64), *products]
        )

    def _rows_with_exclusions(self, history: PurchaseHistory) -> Ints:
        if not self._customer_exclusions:
            return np.empty(0, np.int64)
        return np.flatnonzero(
            np.isin(history.customers, np.fromiter(self._customer_exclusions, np.int64, len(self._customer_exclusions)))
        )


def _sorted_keys(keys: Collection[int]) -> Ints:
    return np.unique(np.fromiter(keys, np.int64, len(keys)))


def ndcg(ranking: RankedProducts, bought: WindowPurchases, n: int = 10) -> float:
    """NDCG@n with the ideal capped at n, averaged over customers who bought something in the window."""
    sizes = np.bincount(bought.rows, minlength=len(bought.is_observed))
    gains = 1.0 / np.log2(np.arange(2, n + 2))
    top = ranking.take(ranking.ranks < n)
    hits = bought.contains(top.rows, top.products)
    dcg = np.bincount(top.rows[hits], gains[top.ranks[hits]], minlength=len(sizes))
    buyers = sizes > 0
    ideal = np.cumsum(gains)[np.minimum(sizes[buyers], n) - 1]
    return float(np.mean(dcg[buyers] / ideal)) if buyers.any() else 0.0


def to_frame(history: PurchaseHistory, lists: Mapping[str, RankedProducts]) -> pd.DataFrame:
    """The lists as one frame: columns customer_key, list, rank (from 1), product_key, score and source.

    Ordered by customer as in the history, by list as in the mapping, and by rank.
    """
    rows = np.concatenate([ranking.rows for ranking in lists.values()])
    ranks = np.concatenate([ranking.ranks for ranking in lists.values()])
    list_number = np.repeat(np.arange(len(lists)), [len(ranking.rows) for ranking in lists.values()])
    order = np.lexsort((ranks, list_number, rows))

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(ranking, name) for ranking in lists.values()])[order]

    return pd.DataFrame(
        {
            "customer_key": history.customers[rows[order]],
            "list": np.array(list(lists), dtype=object)[list_number[order]],
            "rank": ranks[order] + 1,
            "product_key": column("products"),
            "score": np.round(column("scores"), 6),
            "source": np.array(SOURCES, dtype=object)[column("sources")],
        }
    )


def probability_of_any(ranked: pd.DataFrame, frame: pd.DataFrame) -> Floats:
    """P(each customer of the frame buys at least one of its ranked products), as if purchases were independent: (n,).

    ranked: columns customer_key and score (a probability). frame: column customer_key.
    """
    misses = np.log1p(-ranked["score"].clip(upper=1 - 1e-9)).groupby(ranked["customer_key"]).sum()
    return np.asarray(-np.expm1(misses.reindex(frame["customer_key"], fill_value=0.0)), np.float64)


def check_lists(lists: Sequence[str]) -> None:
    """Raises ValueError where a list name is unknown, or where there is none."""
    unknown = [name for name in lists if name not in LISTS]
    if unknown or not lists:
        raise ValueError(f"lists must be some of {', '.join(LISTS)}; got {', '.join(unknown) or 'none'}")
