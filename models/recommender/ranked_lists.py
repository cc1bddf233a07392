"""Ranked lists of products, and the filters that apply to them."""

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

#: Products to leave out: for everybody, or for each customer their own.
Excluded = Collection[int] | Mapping[int, Collection[int]] | None

LISTS = ("any", "again", "new")
SOURCES = ("again", "new", "popular")
AGAIN, NEW, POPULAR = range(3)


@dataclass(frozen=True)
class RankedProducts:
    """Ranked products: those of one customer stand together, best first, with rank 0 for the best."""

    rows: Ints
    products: Ints
    scores: Floats
    sources: NDArray[np.int8]
    ranks: Ints

    def take(self, keep: Flags) -> RankedProducts:
        """A part of the picks, with their old ranks."""
        rows, products, scores = self.rows[keep], self.products[keep], self.scores[keep]
        return RankedProducts(rows, products, scores, self.sources[keep], self.ranks[keep])

    def calibrate(self, curve: Callable[[Floats], Floats]) -> RankedProducts:
        """The same picks, with their strengths turned into chances."""
        return replace(self, scores=curve(self.scores))


def empty_ranking() -> RankedProducts:
    """No picks at all."""
    empty = np.empty(0, np.int64)
    return RankedProducts(empty, empty, np.empty(0), np.empty(0, np.int8), empty)


def top_n(rows: Ints, rank_by: Sequence[NDArray[Any]], n: int) -> tuple[Ints, Ints]:
    """Positions and ranks of the n best entries of every row: the highest worth[0], ties by worth[1]."""
    candidates = np.flatnonzero(_is_near_top(rows, rank_by[0], n))
    order = candidates[np.lexsort((*(-values[candidates] for values in reversed(rank_by)), rows[candidates]))]
    ranks = arrays.positions_within_rows(rows[order])
    return order[ranks < n], ranks[ranks < n]


def _is_near_top(rows: Ints, scores: NDArray[Any], n: int) -> Flags:
    # What is worth less than its row's nth cannot be among the n best, so ties need be broken for few.
    order = np.lexsort((-scores, rows))
    nth = order[arrays.positions_within_rows(rows[order]) == n - 1]
    least = np.full(rows.max(initial=-1) + 1, -np.inf)
    least[rows[nth]] = scores[nth]
    return np.asarray(~(scores < least[rows]))


def merge_lists(lists: Sequence[RankedProducts], n: int) -> RankedProducts:
    """One list of several, by score; where scores are equal the earlier list comes first."""
    rows, products, scores, sources, ranks = (
        np.concatenate([getattr(picks, name) for picks in lists])
        for name in ("rows", "products", "scores", "sources", "ranks")
    )
    list_number = np.repeat(np.arange(len(lists)), [len(picks.rows) for picks in lists])
    order, placed = top_n(rows, (scores, -list_number, -ranks), n)
    return RankedProducts(rows[order], products[order], scores[order], sources[order], placed)


def append_list(first: RankedProducts, then: RankedProducts, n: int) -> RankedProducts:
    """One list in which `then` stands behind `first`; no score is higher than one above it."""
    order = np.lexsort((np.repeat([0, 1], [len(first.rows), len(then.rows)]), _concatenated(first, then, "rows")))
    rows, products, scores, sources = (
        _concatenated(first, then, name)[order] for name in ("rows", "products", "scores", "sources")
    )
    ranks = arrays.positions_within_rows(rows)
    return RankedProducts(rows, products, _non_increasing(scores, ranks), sources, ranks).take(ranks < n)


def _concatenated(first: RankedProducts, then: RankedProducts, name: str) -> NDArray[Any]:
    return np.concatenate([getattr(first, name), getattr(then, name)])


def _non_increasing(scores: Floats, ranks: Ints) -> Floats:
    # One running minimum over all rows: each row is lifted above the rows that follow it.
    lift = -2.0 * np.cumsum(ranks == 0)
    return np.minimum.accumulate(scores + lift) - lift if len(scores) else scores


class ProductFilter:
    """Which products a request allows: not the excluded ones and, where `only` is given, no others."""

    def __init__(self, exclude: Excluded = None, only: Collection[int] | None = None) -> None:
        self._customer_exclusions = exclude if isinstance(exclude, Mapping) else {}
        self._exclusions = _sorted_keys(() if exclude is None or isinstance(exclude, Mapping) else exclude)
        self._only = None if only is None else _sorted_keys(only)

    def is_allowed(self, products: Ints) -> Flags:
        """Whether each product is allowed for customers in general."""
        allowed = ~np.isin(products, self._exclusions) if len(self._exclusions) else np.ones(len(products), bool)
        return allowed if self._only is None else allowed & np.isin(products, self._only)

    def excluded_for(self, customer: int) -> Ints:
        """The products that are excluded for this customer alone."""
        return _sorted_keys(self._customer_exclusions.get(int(customer), ()))

    def is_entry_allowed(self, history: PurchaseHistory) -> Flags:
        """Whether each entry of the shelves is allowed for its customer."""
        allowed = self.is_allowed(history.products)
        for row in self._rows_with_exclusions(history):
            span = slice(history.bounds[row], history.bounds[row + 1])
            allowed[span] &= ~np.isin(history.products[span], self.excluded_for(history.customers[row]))
        return allowed

    def excluded_pairs(self, history: PurchaseHistory) -> tuple[Ints, Ints]:
        """What is excluded for single customers: rows of the shelves, and a product each."""
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


def ndcg(picks: RankedProducts, bought: WindowPurchases, n: int = 10) -> float:
    """NDCG@n with the ideal capped at n, over customers who bought something in the window."""
    sizes = np.bincount(bought.rows, minlength=len(bought.is_observed))
    gains = 1.0 / np.log2(np.arange(2, n + 2))
    top = picks.take(picks.ranks < n)
    hits = bought.contains(top.rows, top.products)
    dcg = np.bincount(top.rows[hits], gains[top.ranks[hits]], minlength=len(sizes))
    buyers = sizes > 0
    ideal = np.cumsum(gains)[np.minimum(sizes[buyers], n) - 1]
    return float(np.mean(dcg[buyers] / ideal)) if buyers.any() else 0.0


def to_frame(history: PurchaseHistory, lists: Mapping[str, RankedProducts]) -> pd.DataFrame:
    """The answer: a row a customer, list and rank (from 1); customers and lists in the order asked."""
    rows = np.concatenate([picks.rows for picks in lists.values()])
    ranks = np.concatenate([picks.ranks for picks in lists.values()])
    which = np.repeat(np.arange(len(lists)), [len(picks.rows) for picks in lists.values()])
    order = np.lexsort((ranks, which, rows))

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(picks, name) for picks in lists.values()])[order]

    return pd.DataFrame(
        {
            "customer_key": history.customers[rows[order]],
            "list": np.array(list(lists), dtype=object)[which[order]],
            "rank": ranks[order] + 1,
            "product_key": column("products"),
            "score": np.round(column("scores"), 6),
            "source": np.array(SOURCES, dtype=object)[column("sources")],
        }
    )


def probability_of_any(ranked: pd.DataFrame, frame: pd.DataFrame) -> Floats:
    """P(each customer of the frame buys at least one of their ranked products), as if purchases were independent."""
    misses = np.log1p(-ranked["score"].clip(upper=1 - 1e-9)).groupby(ranked["customer_key"]).sum()
    return np.asarray(-np.expm1(misses.reindex(frame["customer_key"], fill_value=0.0)), np.float64)


def check_lists(lists: Sequence[str]) -> None:
    """Raise ValueError for a list that nobody knows."""
    unknown = [name for name in lists if name not in LISTS]
    if unknown or not lists:
        raise ValueError(f"lists must be some of {', '.join(LISTS)}; got {', '.join(unknown) or 'none'}")
