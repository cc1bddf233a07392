"""Bestsellers: what sells to everybody, and what each customer keeps coming back for.

Two rules that need no learner: they answer when there is too little to learn from, and they are what the
recommender must beat. On grocery baskets the second is a strong one (Li et al., TOIS 2023, on next baskets).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import base, curves, shelves
from models.shelves import AGAIN, POPULAR, Flags, Floats, Ints, Picks, Rules, Shelves, Truth


@dataclass(frozen=True)
class Bestsellers:
    """All products ever sold, the best seller first, with the share of customers who bought each lately."""

    products: Ints
    shares: Floats

    def shares_of(self, products: Ints) -> Floats:
        """The share of each product; 0 for one that never sold."""
        rising, shares = self._rising
        places, sold = shelves.find(rising, products)
        found = np.zeros(len(products))
        found[sold] = shares[places[sold]]
        return found

    @cached_property
    def _rising(self) -> tuple[Ints, Floats]:
        order = np.argsort(self.products)
        return self.products[order], self.shares[order]

    def everywhere(self, stock: Shelves, rules: Rules, n: int) -> Picks:
        """The n best sellers that a request allows, for everybody alike but for what is barred to them."""
        return self.fill(stock, rules, np.full(len(stock), n), own=True)

    def fill(
        self, stock: Shelves, rules: Rules, wanted: Ints, taken: Picks | None = None, *, own: bool = False
    ) -> Picks:
        """As many best sellers as each row wants, none of them `taken`, nor on its shelf unless `own`."""
        rows = np.flatnonzero(wanted > 0)
        out, products = _unwanted(stock, rules, rows, taken, own)
        allowed = np.flatnonzero(rules.allow(self.products))
        given = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        for start in range(0, len(rows), _TOGETHER):
            here = (out >= start) & (out < start + _TOGETHER)
            some = rows[start : start + _TOGETHER]
            line, places = self._best(allowed, wanted[some], out[here] - start, products[here])
            given.append((some[line], places))
        rows, places = (np.concatenate(parts) for parts in zip(*given, strict=True))
        sources = np.full(len(rows), POPULAR, np.int8)
        return Picks(rows, self.products[places], self.shares[places], sources, shelves.places(rows))

    def _best(self, allowed: Ints, wanted: Ints, out: Ints, products: Ints) -> tuple[Ints, Ints]:
        """The lines and places of as many allowed products as each line wants, without the pairs that are out."""
        deep = (wanted + np.bincount(out, minlength=len(wanted))).max()
        first = allowed[:deep]  # nobody wants any that stands behind so many
        rising = np.argsort(self.products[first])
        places, listed = shelves.find(self.products[first][rising], products)
        free = np.ones((len(wanted), len(first)), bool)
        free[out[listed], rising[places[listed]]] = False
        free &= np.cumsum(free, axis=1, dtype=np.int32) <= wanted[:, None]
        line, column = np.nonzero(free)
        return line, first[column]


def _unwanted(stock: Shelves, rules: Rules, rows: Ints, taken: Picks | None, own: bool) -> tuple[Ints, Ints]:
    """What not to list: places among the rising rows, and a product each."""
    pairs = [rules.barred_pairs(stock)]
    if not own:
        pairs.append((stock.rows, stock.products))
    if taken is not None:
        pairs.append((taken.rows, taken.products))
    at, products = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    places, asked = shelves.find(rows, at)
    return places[asked], products[asked]


def sellers(frame: pd.DataFrame, *, window_days: int) -> Bestsellers:
    """What sold at the frame's latest moment: by buyers in the last window, then by decayed purchases."""
    now = at(frame, frame["as_of"].max())
    slowest = shelves.weights_name(shelves.half_lives(now)[-1])
    stock = shelves.read(now, ["last_days", slowest])
    if not len(stock.products):
        raise base.TooLittle("nobody has bought anything yet; load transactions first")
    products, place = np.unique(stock.products, return_inverse=True)
    lately = np.bincount(place, stock.columns["last_days"] <= window_days)
    order = np.lexsort((products, -np.bincount(place, stock.columns[slowest]), -lately))
    return Bestsellers(products[order], lately[order] / len(stock))


def at(frame: pd.DataFrame, moment: Any) -> pd.DataFrame:
    """The rows of one moment."""
    rows: pd.DataFrame = frame[frame["as_of"] == moment]
    return rows


class Popularity:
    """What sold to most customers lately, for everybody alike."""

    def __init__(self, bestsellers: Bestsellers) -> None:
        self.bestsellers = bestsellers

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: Any = None, *, seed: int = 0, window_days: int = 28) -> Self:
        """Count customers a product over the `window_days` before the latest moment. Needs no label."""
        return cls(sellers(frame, window_days=window_days))

    def score(
        self,
        frame: pd.DataFrame,
        n: int = 50,
        lists: Sequence[str] = shelves.LISTS,
        exclude: shelves.Excluded = None,
        only: Collection[int] | None = None,
    ) -> pd.DataFrame:
        """The best sellers for every customer, as `DecayedFrequency.score` gives them."""
        shelves.check_lists(lists)
        stock, rules = shelves.read(frame, []), Rules(exclude, only)
        sold = self.bestsellers
        makers = {
            "any": lambda: sold.everywhere(stock, rules, n),
            "again": lambda: own(stock, rules, n, sold.shares_of(stock.products), sold),
            "new": lambda: sold.fill(stock, rules, np.full(len(stock), n)),
        }
        return shelves.table(stock, {name: makers[name]() for name in lists})

    def chances(self, frame: pd.DataFrame, products: Collection[int]) -> Floats:
        """P(each customer of the frame buys at least one of these products within the window), (n,)."""
        return shelves.any_of(self.score(frame, lists=("again", "new"), only=products), frame)

    def typical(self, n: int = 50) -> tuple[Ints, Floats]:
        """The shop's n best sellers: product keys, and the share of customers who bought each lately."""
        return self.bestsellers.products[:n], self.bestsellers.shares[:n]

    @property
    def settings(self) -> dict[str, Any]:
        """What was settled while learning, for the record."""
        return {"products": len(self.bestsellers.products)}

    def save(self, folder: Path) -> None:
        """Write arrays.npz into an existing folder."""
        write_arrays(folder, products=self.bestsellers.products, shares=self.bestsellers.shares)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        arrays = read_arrays(folder)
        return cls(Bestsellers(arrays["products"], arrays["shares"]))


class DecayedFrequency:
    """What each customer bought most often, older purchases counting less; then what sells to everybody."""

    def __init__(self, bestsellers: Bestsellers, half_life: int, curve: curves.Curve) -> None:
        self.bestsellers = bestsellers
        self.half_life = half_life
        self.curve = curve

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: Any = None,
        *,
        seed: int = 0,
        window_days: int = 28,
        half_life: int | None = None,
        enough: int = 50,
    ) -> Self:
        """Choose the half-life (days) with the best capped NDCG@10 at the latest moment of known outcome.

        With fewer than `enough` customers who bought in its window, the half-life is the one nearest 84 days
        (the best on grocery sales), and the chance of a purchase that of a Poisson process of the same rate.
        """
        bestsellers = sellers(frame, window_days=window_days)
        known = past(frame, label)
        if not known or known[0].buyers < enough:
            days = half_life or _nearest(shelves.half_lives(frame), 84)
            return cls(bestsellers, days, poisson(days, window_days))
        bought = known[0].bought
        stock = shelves.read(known[0].frame, map(shelves.weights_name, shelves.half_lives(frame)))
        # Ties are broken by what sold best then, not by what sold best in the window that is foretold.
        then = sellers(at(frame, known[0].moment), window_days=window_days)
        days = half_life or best_half_life(stock, bought, then)
        return cls(bestsellers, days, repeat_curve(stock, bought, days, window_days))

    def score(
        self,
        frame: pd.DataFrame,
        n: int = 50,
        lists: Sequence[str] = shelves.LISTS,
        exclude: shelves.Excluded = None,
        only: Collection[int] | None = None,
    ) -> pd.DataFrame:
        """Ranked products for every customer: customer_key, list, rank (from 1), product_key, score, source.

        `again` holds what a customer has bought before, `new` what they have not, `any` both; score is the
        chance of a purchase within the window. `exclude` leaves products out, for all customers or, as a
        mapping, for each; `only` allows no others. A list is shorter than n where there is not enough.
        """
        shelves.check_lists(lists)
        stock, rules = shelves.read(frame, [shelves.weights_name(self.half_life)]), Rules(exclude, only)
        again = self.again(stock, rules, n)
        new = self.bestsellers.fill(stock, rules, np.full(len(stock), n))
        makers = {
            "any": lambda: shelves.follow(again, new, n),
            "again": lambda: again,
            "new": lambda: new,
        }
        return shelves.table(stock, {name: makers[name]() for name in lists})

    def again(self, stock: Shelves, rules: Rules, n: int) -> Picks:
        """The n products that each customer is likeliest to buy again."""
        weight = stock.weights(self.half_life)
        picks = own(stock, rules, n, weight, self.bestsellers)
        return picks.through(lambda weight: self.curve(np.log(np.maximum(weight, _FAINT))))

    def chances(self, frame: pd.DataFrame, products: Collection[int]) -> Floats:
        """P(each customer of the frame buys at least one of these products within the window), (n,)."""
        return shelves.any_of(self.score(frame, lists=("again", "new"), only=products), frame)

    def typical(self, n: int = 50) -> tuple[Ints, Floats]:
        """The shop's n best sellers: product keys, and the share of customers who bought each lately."""
        return self.bestsellers.products[:n], self.bestsellers.shares[:n]

    @property
    def settings(self) -> dict[str, Any]:
        """What was settled while learning, for the record."""
        return {"products": len(self.bestsellers.products), "half_life_days": self.half_life}

    def save(self, folder: Path) -> None:
        """Write arrays.npz and habit.json into an existing folder."""
        write_arrays(folder, **self.arrays())
        base.write_json(folder / "habit.json", {"half_life_days": self.half_life})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        return cls.of(read_arrays(folder), base.read_json(folder / "habit.json")["half_life_days"])

    def arrays(self) -> dict[str, Any]:
        """All that was learned, but for the half-life."""
        sold, curve = self.bestsellers, self.curve
        return {
            "products": sold.products,
            "shares": sold.shares,
            "again_strengths": curve.strengths,
            "again_shares": curve.shares,
        }

    @classmethod
    def of(cls, arrays: dict[str, Any], half_life: int) -> Self:
        """The rule again, from what `arrays` gave."""
        curve = curves.Curve(arrays["again_strengths"], arrays["again_shares"])
        return cls(Bestsellers(arrays["products"], arrays["shares"]), half_life, curve)


#: So many customers' lists are filled at a time: a flag for each of them and each best seller lies in memory.
_TOGETHER = 2_000
#: Purchases so long ago that they count less than this are all alike.
_FAINT = 1e-6


def own(stock: Shelves, rules: Rules, n: int, worth: Floats, bestsellers: Bestsellers) -> Picks:
    """The n products of each customer's own shelf that are worth most; `worth` is an entry each."""
    keep = rules.allow_pairs(stock)
    rows, products, worth = stock.rows[keep], stock.products[keep], worth[keep]
    # The same days give the same weight to many products; what more customers buy goes first.
    order, ranks = shelves.best(rows, (worth, bestsellers.shares_of(products), -products), n)
    sources = np.full(len(order), AGAIN, np.int8)
    return Picks(rows[order], products[order], worth[order], sources, ranks)


@dataclass(frozen=True)
class Past:
    """One moment whose outcome is known, for the customers of whom it is."""

    moment: pd.Timestamp
    frame: pd.DataFrame
    bought: Truth

    @property
    def buyers(self) -> int:
        """How many customers bought anything in the window."""
        return len(np.unique(self.bought.rows))


def past(frame: pd.DataFrame, label: Any, *, moments: int = 1, customers: int = 5_000) -> list[Past]:
    """The latest moments of known outcome, oldest first; of each at most so many customers, evenly spread."""
    if label is None:
        return []
    cells = pd.Series(list(label), dtype=object).to_numpy()
    known = shelves.truth(cells).known
    days = frame["as_of"][known].drop_duplicates().sort_values().tail(moments)
    return [_past(frame, cells, known, moment, customers) for moment in days]


def _past(frame: pd.DataFrame, cells: NDArray[Any], known: Flags, moment: pd.Timestamp, customers: int) -> Past:
    rows = np.flatnonzero((frame["as_of"] == moment).to_numpy() & known)
    rows = rows[np.linspace(0, len(rows) - 1, min(customers, len(rows))).astype(np.int64)]
    return Past(moment, frame.iloc[rows], shelves.truth(cells[rows]))


def best_half_life(stock: Shelves, bought: Truth, bestsellers: Bestsellers) -> int:
    """The half-life (days) whose lists of ten are best by capped NDCG; the shortest of equals."""
    offered = sorted(int(name.removeprefix("weights_").removesuffix("d")) for name in stock.columns)
    lists = {days: own(stock, Rules(), 10, stock.weights(days), bestsellers) for days in offered}
    return max(offered, key=lambda days: shelves.ndcg(lists[days], bought))


def repeat_curve(stock: Shelves, bought: Truth, half_life: int, window_days: int) -> curves.Curve:
    """How often products of this decayed weight (its logarithm) were bought again within the window."""
    if not len(stock.rows):
        return poisson(half_life, window_days)
    strength = np.log(np.maximum(stock.weights(half_life), _FAINT))
    return curves.learn(strength, bought.holds(stock.rows, stock.products))


def poisson(half_life: int, window_days: int) -> curves.Curve:
    """The chance of a purchase in the window if customers buy at random, at the rate that a weight means."""
    weight = np.geomspace(_FAINT, 100.0, 60)
    return curves.Curve(np.log(weight), -np.expm1(-weight * window_days * np.log(2.0) / half_life))


def _nearest(offered: Sequence[int], days: int) -> int:
    return min(offered, key=lambda half_life: abs(half_life - days))


def write_arrays(folder: Path, **arrays: Any) -> None:
    """Write named arrays to arrays.npz."""
    with (folder / "arrays.npz").open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(folder: Path) -> dict[str, Any]:
    """Read what `write_arrays` wrote; never anything that could run."""
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
