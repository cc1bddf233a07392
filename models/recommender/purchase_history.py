"""Shelves: everything each customer has ever bought, and the ranked lists that are made from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import base

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
#: Products to leave out: for everybody, or for each customer their own.
Excluded = Collection[int] | Mapping[int, Collection[int]] | None

LISTS = ("any", "again", "new")
SOURCES = ("again", "new", "popular")
AGAIN, NEW, POPULAR = range(3)
_NOTHING = np.empty(0)


@dataclass(frozen=True)
class Shelves:
    """What customers have bought, laid end to end: entry i says that row `rows[i]` bought `products[i]`."""

    customers: Ints
    rows: Ints
    products: Ints
    bounds: Ints
    columns: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.customers)

    def weights(self, half_life: int) -> Floats:
        """Purchase days of every entry, each counting half as much for every half-life (days) it is old."""
        return self.columns[weights_name(half_life)]

    def of(self, row: int) -> Ints:
        """The products of one customer."""
        return self.products[self.bounds[row] : self.bounds[row + 1]]


def weights_name(half_life: int) -> str:
    """The column that holds purchase days decayed with this half-life in days."""
    return f"weights_{half_life}d"


def half_lives(frame: pd.DataFrame) -> tuple[int, ...]:
    """The half-lives (days) for which the frame carries weights, shortest first."""
    names = frame.columns.astype(str).str.extract(r"^weights_(\d+)d$")[0].dropna()
    if names.empty:
        raise base.Unfit("the frame lacks weights of decayed purchases; compute the shelf")
    return tuple(sorted(int(days) for days in names))


def read(frame: pd.DataFrame, columns: Iterable[str]) -> Shelves:
    """Lay the frame's arrays end to end; a customer without an array has bought nothing."""
    columns = sorted(columns)
    base.require(frame, ["customer_key", "product_keys", *columns])
    products, sizes = _flat(frame["product_keys"])
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    flat = {}
    for name in columns:
        values, lengths = _flat(frame[name])
        if not np.array_equal(lengths, sizes):
            raise base.Unfit(f"{name} is not aligned with product_keys; compute the shelf again")
        flat[name] = values.astype(np.float64)
    rows = np.repeat(np.arange(len(frame)), sizes)
    return Shelves(frame["customer_key"].to_numpy(np.int64), rows, products.astype(np.int64), bounds, flat)


def _flat(column: pd.Series) -> tuple[NDArray[Any], Ints]:
    arrays = [np.asarray(cell) if _is_array(cell) else _NOTHING for cell in column]
    sizes = np.fromiter((len(array) for array in arrays), np.int64, len(arrays))
    return (np.concatenate(arrays) if arrays else _NOTHING), sizes


def _is_array(cell: object) -> bool:
    return isinstance(cell, (np.ndarray, list, tuple))


@dataclass(frozen=True)
class Truth:
    """What customers bought in the window that followed; `known` says of whom that is known."""

    known: Flags
    rows: Ints
    products: Ints

    def holds(self, rows: Ints, products: Ints) -> Flags:
        """Whether the customer of each pair bought its product in the window."""
        keys = np.unique(self.products)
        inside = np.isin(products, keys)
        mine = _codes(self.rows, self.products, keys)
        asked = _codes(rows[inside], products[inside], keys)
        held = np.zeros(len(rows), bool)
        held[inside] = pd.Index(asked).isin(mine)  # hashing; numpy's isin would sort both
        return held

    def only(self, keep: Flags) -> Truth:
        """The same customers, with a part of what they bought."""
        return Truth(self.known, self.rows[keep], self.products[keep])


def _codes(rows: Ints, products: Ints, keys: Ints) -> Ints:
    return np.asarray(rows * max(len(keys), 1) + np.searchsorted(keys, products))


def find(products: Ints, wanted: Ints) -> tuple[Ints, Flags]:
    """Where each wanted product stands among rising products, and whether it does."""
    if not len(products):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    if len(wanted) > len(products):  # then a hash table is worth its making: ten times as fast
        places = pd.Index(products).get_indexer(pd.Index(wanted))
        return places, places >= 0
    places = np.searchsorted(products, wanted).clip(max=len(products) - 1)
    return places, products[places] == wanted


def turns(frame: pd.DataFrame, customers: int = 2_000) -> Iterator[pd.DataFrame]:
    """The frame, so many customers at a time: what is worked out of a shelf is ten times as large as the shelf."""
    for start in range(0, max(len(frame), 1), customers):
        yield frame.iloc[start : start + customers]


def truth(label: Sequence[Any] | NDArray[Any] | pd.Series) -> Truth:
    """Read a label: per row the products bought in the window, empty for none, None for not known."""
    column = pd.Series(list(label), dtype=object)
    known = np.fromiter((_is_array(cell) for cell in column), bool, len(column))
    products, sizes = _flat(column)
    return Truth(known, np.repeat(np.arange(len(column)), sizes), products.astype(np.int64))


@dataclass(frozen=True)
class Picks:
    """Ranked products: those of one customer stand together, best first, with rank 0 for the best."""

    rows: Ints
    products: Ints
    scores: Floats
    sources: NDArray[np.int8]
    ranks: Ints

    def take(self, keep: Flags) -> Picks:
        """A part of the picks, with their old ranks."""
        rows, products, scores = self.rows[keep], self.products[keep], self.scores[keep]
        return Picks(rows, products, scores, self.sources[keep], self.ranks[keep])

    def through(self, curve: Callable[[Floats], Floats]) -> Picks:
        """The same picks, with their strengths turned into chances."""
        return replace(self, scores=curve(self.scores))


def none() -> Picks:
    """No picks at all."""
    nothing = np.empty(0, np.int64)
    return Picks(nothing, nothing, np.empty(0), np.empty(0, np.int8), nothing)


def best(rows: Ints, worth: Sequence[NDArray[Any]], n: int) -> tuple[Ints, Ints]:
    """Positions and ranks of the n best entries of every row: the highest worth[0], ties by worth[1]."""
    near = np.flatnonzero(_near(rows, worth[0], n))
    order = near[np.lexsort((*(-part[near] for part in reversed(worth)), rows[near]))]
    ranks = places(rows[order])
    return order[ranks < n], ranks[ranks < n]


def _near(rows: Ints, worth: NDArray[Any], n: int) -> Flags:
    # What is worth less than its row's nth cannot be among the n best, so ties need be broken for few.
    order = np.lexsort((-worth, rows))
    nth = order[places(rows[order]) == n - 1]
    least = np.full(rows.max(initial=-1) + 1, -np.inf)
    least[rows[nth]] = worth[nth]
    return np.asarray(~(worth < least[rows]))


def places(rows: Ints) -> Ints:
    """The place of each entry within its row, from 0; entries of a row stand together."""
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    return np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))


def merge(lists: Sequence[Picks], n: int) -> Picks:
    """One list of several, by score; where scores are equal the earlier list comes first."""
    rows, products, scores, sources, ranks = (
        np.concatenate([getattr(picks, name) for picks in lists])
        for name in ("rows", "products", "scores", "sources", "ranks")
    )
    turn = np.repeat(np.arange(len(lists)), [len(picks.rows) for picks in lists])
    order, placed = best(rows, (scores, -turn, -ranks), n)
    return Picks(rows[order], products[order], scores[order], sources[order], placed)


def follow(first: Picks, then: Picks, n: int) -> Picks:
    """One list in which `then` stands behind `first`; no score is higher than one above it."""
    order = np.lexsort((np.repeat([0, 1], [len(first.rows), len(then.rows)]), _both(first, then, "rows")))
    rows, products, scores, sources = (
        _both(first, then, name)[order] for name in ("rows", "products", "scores", "sources")
    )
    ranks = places(rows)
    return Picks(rows, products, _falling(scores, ranks), sources, ranks).take(ranks < n)


def _both(first: Picks, then: Picks, name: str) -> NDArray[Any]:
    return np.concatenate([getattr(first, name), getattr(then, name)])


def _falling(scores: Floats, ranks: Ints) -> Floats:
    # One running minimum over all rows: each row is lifted above the rows that follow it.
    lift = -2.0 * np.cumsum(ranks == 0)
    return np.minimum.accumulate(scores + lift) - lift if len(scores) else scores


class Rules:
    """Which products a request allows: not the excluded ones and, where `only` is given, no others."""

    def __init__(self, exclude: Excluded = None, only: Collection[int] | None = None) -> None:
        self._own = exclude if isinstance(exclude, Mapping) else {}
        self._out = _sorted(() if exclude is None or isinstance(exclude, Mapping) else exclude)
        self._only = None if only is None else _sorted(only)

    def allow(self, products: Ints) -> Flags:
        """Whether each product is allowed for customers in general."""
        allowed = ~np.isin(products, self._out) if len(self._out) else np.ones(len(products), bool)
        return allowed if self._only is None else allowed & np.isin(products, self._only)

    def barred(self, customer: int) -> Ints:
        """The products that are excluded for this customer alone."""
        return _sorted(self._own.get(int(customer), ()))

    def allow_pairs(self, shelves: Shelves) -> Flags:
        """Whether each entry of the shelves is allowed for its customer."""
        allowed = self.allow(shelves.products)
        for row in self._rows_with_own(shelves):
            mine = slice(shelves.bounds[row], shelves.bounds[row + 1])
            allowed[mine] &= ~np.isin(shelves.products[mine], self.barred(shelves.customers[row]))
        return allowed

    def barred_pairs(self, shelves: Shelves) -> tuple[Ints, Ints]:
        """What is excluded for single customers: rows of the shelves, and a product each."""
        rows = self._rows_with_own(shelves)
        products = [self.barred(shelves.customers[row]) for row in rows]
        return np.repeat(rows, [len(mine) for mine in products]), np.concatenate([np.empty(0, np.int64), *products])

    def _rows_with_own(self, shelves: Shelves) -> Ints:
        if not self._own:
            return np.empty(0, np.int64)
        return np.flatnonzero(np.isin(shelves.customers, np.fromiter(self._own, np.int64, len(self._own))))


def _sorted(keys: Collection[int]) -> Ints:
    return np.unique(np.fromiter(keys, np.int64, len(keys)))


def ndcg(picks: Picks, bought: Truth, n: int = 10) -> float:
    """NDCG@n with the ideal capped at n, over customers who bought something in the window."""
    sizes = np.bincount(bought.rows, minlength=len(bought.known))
    gains = 1.0 / np.log2(np.arange(2, n + 2))
    top = picks.take(picks.ranks < n)
    hits = bought.holds(top.rows, top.products)
    gained = np.bincount(top.rows[hits], gains[top.ranks[hits]], minlength=len(sizes))
    buyers = sizes > 0
    ideal = np.cumsum(gains)[np.minimum(sizes[buyers], n) - 1]
    return float(np.mean(gained[buyers] / ideal)) if buyers.any() else 0.0


def table(shelves: Shelves, lists: Mapping[str, Picks]) -> pd.DataFrame:
    """The answer: a row a customer, list and rank (from 1); customers and lists in the order asked."""
    rows = np.concatenate([picks.rows for picks in lists.values()])
    ranks = np.concatenate([picks.ranks for picks in lists.values()])
    which = np.repeat(np.arange(len(lists)), [len(picks.rows) for picks in lists.values()])
    order = np.lexsort((ranks, which, rows))

    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(picks, name) for picks in lists.values()])[order]

    return pd.DataFrame(
        {
            "customer_key": shelves.customers[rows[order]],
            "list": np.array(list(lists), dtype=object)[which[order]],
            "rank": ranks[order] + 1,
            "product_key": column("products"),
            "score": np.round(column("scores"), 6),
            "source": np.array(SOURCES, dtype=object)[column("sources")],
        }
    )


def any_of(ranked: pd.DataFrame, frame: pd.DataFrame) -> Floats:
    """P(each customer of the frame buys at least one of their ranked products), as if purchases were independent."""
    misses = np.log1p(-ranked["score"].clip(upper=1 - 1e-9)).groupby(ranked["customer_key"]).sum()
    return np.asarray(-np.expm1(misses.reindex(frame["customer_key"], fill_value=0.0)), np.float64)


def check_lists(lists: Sequence[str]) -> None:
    """Raise ValueError for a list that nobody knows."""
    unknown = [name for name in lists if name not in LISTS]
    if unknown or not lists:
        raise ValueError(f"lists must be some of {', '.join(LISTS)}; got {', '.join(unknown) or 'none'}")
