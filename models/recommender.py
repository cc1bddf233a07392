"""The recommender: what a customer will buy again, and what they have never bought but would.

`again` ranks a customer's own products by habit, or by decayed frequency where that has been no worse;
`new` is collaborative filtering (Hu, Koren and Volinsky, ICDM 2008). Each goes through its own rising curve
to the chance of a purchase within the window, so that one list can hold both. Only products are remembered:
a customer's taste is worked out from their shelf whenever they are asked about.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from models import base, bestsellers, curves, habits, shelves
from models.bestsellers import DecayedFrequency, Past
from models.habits import Habits
from models.shelves import NEW, Floats, Ints, Picks, Rules, Shelves, Truth

Singles = NDArray[np.float32]

#: How much the popularity of a product may count beside the customer's taste; learning chooses one.
LEANS = (0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Tastes:
    """What is known of products that enough customers bought: their factors, and how well they sell now.

    `products` rise; `factors` is (products, f); `heat` is the logarithm of recent sales over the average.
    """

    products: Ints
    factors: Singles
    heat: Singles
    regularisation: float
    half_life: int

    def fold(self, stock: Shelves) -> Singles:
        """The tastes (customers, f), each solved from its shelf; 0 where that says nothing."""
        places, sold = shelves.find(self.products, stock.products)
        places, confidence = places[sold], stock.weights(self.half_life)[sold]
        bounds = np.searchsorted(stock.rows[sold], np.arange(len(stock) + 1))
        tastes = np.zeros((len(stock), self.factors.shape[1]), np.float32)
        for row in np.flatnonzero(np.diff(bounds)):
            mine = slice(bounds[row], bounds[row + 1])
            tastes[row] = self._solve(self.factors[places[mine]].astype(np.float64), confidence[mine])
        return tastes

    def _solve(self, mine: Floats, confidence: Floats) -> Floats:
        # A product never bought has confidence 1 in "no", one bought has its decayed weight in "yes".
        bend = self._never + (mine.T * (confidence - 1.0)) @ mine
        return np.asarray(np.linalg.solve(bend, confidence @ mine), np.float64)

    def sides(self, lean: float) -> Singles:
        """The products' side of a strength, (products, f + 1): factors, and heat times the lean."""
        return np.column_stack([self.factors, np.float32(lean) * self.heat])

    @cached_property
    def _never(self) -> Floats:
        wide = self.factors.astype(np.float64)
        return np.asarray(wide.T @ wide + self.regularisation * np.eye(wide.shape[1]))


class Recommender:
    """Ranks products for customers: what they buy again, what is new to them, and both in one list."""

    def __init__(self, again: Again, tastes: Tastes, lean: float, curve: curves.Curve) -> None:
        self.own = again
        self.tastes = tastes
        self.lean = lean
        self.curve = curve

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: Any,
        *,
        seed: int = 0,
        window_days: int = 28,
        factors: int = 48,
        iterations: int = 15,
        threads: int = 1,
        enough: int = 50,
        leans: Sequence[float] = LEANS,
    ) -> Self:
        """Learn from shelves at several moments, and from what was bought in the window after each.

        What serves is settled at the latest moment of known outcome, with products factorised as they stood
        then; the factors that serve are those of the frame's latest moment. Raises TooLittle where fewer
        than `enough` customers bought something in that window.
        """
        past = bestsellers.past(frame, label, moments=3)
        if not past or past[-1].buyers < enough:
            raise base.TooLittle(f"fewer than {enough} customers bought something in a window that is over")
        again = _learn_again(frame, label, past, window_days)
        learn = {"seed": seed, "factors": factors, "iterations": iterations, "threads": threads}
        then = factorise(bestsellers.at(frame, past[-1].moment), **learn)
        lean, curve = _settle(then, past[-1], leans)
        latest = frame["as_of"].max()
        now = then if latest == past[-1].moment else factorise(bestsellers.at(frame, latest), **learn)
        return cls(again, now, lean, curve)

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
        wanted = {*self.own.columns, shelves.weights_name(self.tastes.half_life)}
        stock, rules = shelves.read(frame, wanted), Rules(exclude, only)
        made: dict[str, Picks] = {}
        if {"any", "again"} & set(lists):
            made["again"] = self.own.picks(stock, rules, n)
        if {"any", "new"} & set(lists):
            made["new"] = self._new(stock, rules, n)
        if "any" in lists:
            made["any"] = shelves.merge((made["again"], made["new"]), n)
        return shelves.table(stock, {name: made[name] for name in lists})

    def _new(self, stock: Shelves, rules: Rules, n: int) -> Picks:
        found = discover(self.tastes.products, self._sides, self.tastes.fold(stock), stock, rules, n)
        liked = found.through(self.curve)
        missing = n - np.bincount(liked.rows, minlength=len(stock))
        popular = self.own.plain.bestsellers.fill(stock, rules, missing, taken=liked)
        return shelves.follow(liked, popular, n)

    @cached_property
    def _sides(self) -> Singles:
        return self.tastes.sides(self.lean)

    def typical(self, n: int = 50) -> tuple[Ints, Floats]:
        """The shop's n best sellers: product keys, and the share of customers who bought each lately."""
        return self.own.plain.typical(n)

    @property
    def settings(self) -> dict[str, Any]:
        """What was settled while learning, for the record."""
        return {
            **self.own.plain.settings,
            "again_by": "habits" if self.own.habits else "decayed frequency",
            "factorised_products": len(self.tastes.products),
            "factors": self.tastes.factors.shape[1],
            "regularisation": round(self.tastes.regularisation, 6),
            "lean": self.lean,
        }

    def save(self, folder: Path) -> None:
        """Write arrays.npz and recommender.json into an existing folder; nothing of any customer."""
        kept = {"factorised": self.tastes.products, "factors": self.tastes.factors, "heat": self.tastes.heat}
        new = {"new_strengths": self.curve.strengths, "new_shares": self.curve.shares}
        bestsellers.write_arrays(folder, **kept, **new, **self.own.arrays())
        settled = {"half_life_days": self.own.plain.half_life, "taste_half_life_days": self.tastes.half_life}
        strengths = {"regularisation": self.tastes.regularisation, "lean": self.lean}
        base.write_json(folder / "recommender.json", {**settled, **strengths})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        arrays, settled = bestsellers.read_arrays(folder), base.read_json(folder / "recommender.json")
        kept = (arrays["factorised"], arrays["factors"], arrays["heat"])
        tastes = Tastes(*kept, settled["regularisation"], settled["taste_half_life_days"])
        curve = curves.Curve(arrays["new_strengths"], arrays["new_shares"])
        return cls(Again.of(arrays, settled["half_life_days"]), tastes, settled["lean"], curve)


@dataclass(frozen=True)
class Again:
    """What customers buy again: by habits, each strength with its chance, or plainly by decayed frequency."""

    plain: DecayedFrequency
    habits: Habits | None = None
    curve: curves.Curve | None = None

    @property
    def columns(self) -> list[str]:
        """The columns of a shelf that are needed."""
        ours = habits.columns(self.habits.half_lives) if self.habits else []
        return [*ours, shelves.weights_name(self.plain.half_life)]

    def picks(self, stock: Shelves, rules: Rules, n: int) -> Picks:
        """The n products that each customer is likeliest to buy again, with the chance of it."""
        if self.habits is None or self.curve is None:
            return self.plain.again(stock, rules, n)
        worth = self.habits.strength(stock)
        return bestsellers.own(stock, rules, n, worth, self.plain.bestsellers).through(self.curve)

    def arrays(self) -> dict[str, Any]:
        """All that was learned, but for the half-life of the plain rule."""
        if self.habits is None or self.curve is None:
            return self.plain.arrays()
        return {
            **self.plain.arrays(),
            **{f"habits_{name}": array for name, array in self.habits.arrays().items()},
            "habits_curve_strengths": self.curve.strengths,
            "habits_curve_shares": self.curve.shares,
        }

    @classmethod
    def of(cls, arrays: dict[str, Any], half_life: int) -> Self:
        """The same again, from what `arrays` gave."""
        plain = DecayedFrequency.of(arrays, half_life)
        if "habits_curve_shares" not in arrays:
            return cls(plain)
        ours = {name.removeprefix("habits_"): array for name, array in arrays.items()}
        return cls(plain, Habits.of(ours), curves.Curve(ours["curve_strengths"], ours["curve_shares"]))


#: Fewer products on customers' shelves than this say nothing about habits.
_ENOUGH_PAIRS = 500


def _learn_again(frame: pd.DataFrame, label: Any, past: Sequence[Past], window_days: int) -> Again:
    """Habits where, learned from earlier windows, they rank the latest better than decayed frequency does."""
    plain = DecayedFrequency.fit(frame, label, window_days=window_days, enough=0)
    days = shelves.half_lives(frame)
    lessons = [_lesson(frame, then, days, window_days) for then in past]
    latest, before = lessons[-1], past[-1].moment - pd.Timedelta(days=window_days)
    earlier = [lesson.example for lesson, then in zip(lessons, past, strict=True) if then.moment <= before]
    if sum(len(outcome) for _, outcome in earlier) < _ENOUGH_PAIRS or not len(latest.stock.rows):
        return Again(plain)
    trial = habits.learn(earlier, days, latest.appeal)
    lists = [
        bestsellers.own(latest.stock, Rules(), 10, worth, plain.bestsellers)
        for worth in (trial.strength(latest.stock), latest.stock.weights(plain.half_life))
    ]
    if shelves.ndcg(lists[0], past[-1].bought) <= shelves.ndcg(lists[1], past[-1].bought):
        return Again(plain)
    settled = habits.learn([lesson.example for lesson in lessons], days, latest.appeal)
    curve = curves.learn(settled.strength(latest.stock), latest.example[1])
    now = _appeal(frame, frame["as_of"].max(), days, window_days)
    return Again(plain, replace(settled, appeal=now), curve)


@dataclass(frozen=True)
class _Lesson:
    stock: Shelves
    appeal: habits.Appeal
    example: tuple[Floats, shelves.Flags]


def _lesson(frame: pd.DataFrame, then: Past, half_lives: Sequence[int], window_days: int) -> _Lesson:
    stock = shelves.read(then.frame, {*habits.columns(half_lives), *map(shelves.weights_name, half_lives)})
    appeal = _appeal(frame, then.moment, half_lives, window_days)
    rows, outcome = habits.features(stock, appeal, half_lives), then.bought.holds(stock.rows, stock.products)
    return _Lesson(stock, appeal, (rows, outcome))


def _appeal(frame: pd.DataFrame, moment: Any, half_lives: Sequence[int], window_days: int) -> habits.Appeal:
    stock = shelves.read(bestsellers.at(frame, moment), habits.columns(half_lives))
    return habits.appeal(stock, window_days=window_days)


def discover(products: Ints, sides: Singles, liking: Singles, stock: Shelves, rules: Rules, n: int) -> Picks:
    """The n products that each customer never bought and likes best; scores are strengths, not yet chances.

    `products` and `sides` are those of `Tastes`, `liking` is what its `fold` gave for these shelves.
    Customers of whom it says nothing are left out.
    """
    allowed = rules.allow(products)
    if not allowed.all():
        products, sides = products[allowed], sides[allowed]
    n = min(n, len(products))
    batches = _batches(np.flatnonzero(liking.any(axis=1))) if n > 0 else []
    picked = [_discover(products, sides, liking[rows], stock, rules, rows, n) for rows in batches]
    rows, chosen, strengths = (np.concatenate(parts) for parts in zip(_NONE, *picked, strict=True))
    sources = np.full(len(rows), NEW, np.int8)
    return Picks(rows, products[chosen], strengths, sources, shelves.places(rows))


_NONE = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


def _batches(rows: Ints, size: int = 64) -> Iterator[Ints]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _discover(
    products: Ints, sides: Singles, liking: Singles, stock: Shelves, rules: Rules, rows: Ints, n: int
) -> tuple[Ints, Ints, Floats]:
    strength = np.hstack([liking, np.ones((len(rows), 1), np.float32)]) @ sides.T
    for line, row in zip(strength, rows, strict=True):
        out = np.concatenate([stock.of(row), rules.barred(stock.customers[row])])
        places, sold = shelves.find(products, out)
        line[places[sold]] = -np.inf
    top = np.argpartition(strength, -n, axis=1)[:, -n:]
    values = np.take_along_axis(strength, top, axis=1)
    order = np.lexsort((top, -values), axis=1)
    top, values = np.take_along_axis(top, order, axis=1), np.take_along_axis(values, order, axis=1)
    kept = np.isfinite(values)
    return np.repeat(rows, n).reshape(kept.shape)[kept], top[kept], values[kept].astype(np.float64)


def factorise(frame: pd.DataFrame, *, seed: int, factors: int, iterations: int, threads: int) -> Tastes:
    """Factorise who bought what at one moment, by implicit alternating least squares.

    Products need five purchase days (fewer in a small shop). The regularisation is a share of the singular
    value that noise alone would have in a matrix of this size and density, so that it suits any shop.
    """
    from implicit.cpu.als import AlternatingLeastSquares

    half_life, quickest = shelves.half_lives(frame)[-1], shelves.half_lives(frame)[0]
    stock = shelves.read(frame, {"times", shelves.weights_name(half_life), shelves.weights_name(quickest)})
    products = _catalogue(stock)
    if not len(products):
        raise base.TooLittle("nobody had bought anything before the latest window that is over")
    bought = _matrix(stock, products, stock.weights(half_life))
    regularisation = 0.9 * _noise(bought)
    model = AlternatingLeastSquares(
        factors=max(1, min(factors, min(bought.shape) // 4)),
        regularization=regularisation,
        iterations=iterations,
        num_threads=threads,
        random_state=seed,
    )
    model.fit(bought, show_progress=False)
    if model.user_factors.shape[0] != len(stock) or model.item_factors.shape[0] != len(products):
        raise RuntimeError("the factorisation is the wrong way round: its input is customers by products")
    sold = np.asarray(_matrix(stock, products, stock.weights(quickest)).sum(axis=0)).ravel()
    heat = np.log(sold / max(sold.mean(), 1e-12) + 0.02).astype(np.float32)
    return Tastes(products, np.asarray(model.item_factors, np.float32), heat, regularisation, half_life)


def _catalogue(stock: Shelves, days: int = 5, wanted: int = 200) -> Ints:
    products, place = np.unique(stock.products, return_inverse=True)
    support = np.bincount(place, stock.columns["times"])
    for least in range(days, 1, -1):
        if np.count_nonzero(support >= least) >= wanted:
            return products[support >= least]
    return products


def _matrix(stock: Shelves, products: Ints, weights: Floats) -> scipy.sparse.csr_matrix:
    places, sold = shelves.find(products, stock.products)
    cells = (weights[sold].astype(np.float32), (stock.rows[sold], places[sold]))
    return scipy.sparse.csr_matrix(cells, shape=(len(stock), len(products)))


def _noise(bought: scipy.sparse.csr_matrix) -> float:
    customers, products = bought.shape
    density = bought.nnz / (customers * products)
    return float(np.sqrt(density) * (np.sqrt(customers) + np.sqrt(products)))


def _settle(
    tastes: Tastes, then: Past, leans: Sequence[float], depth: int = 100
) -> tuple[float, curves.Curve]:
    """The lean with the best `new` lists of ten, and the curve of its first hundred places."""
    stock = shelves.read(then.frame, [shelves.weights_name(tastes.half_life)])
    fresh = then.bought.only(~_owned(stock, then.bought))
    liking = tastes.fold(stock)
    lists = {
        lean: discover(tastes.products, tastes.sides(lean), liking, stock, Rules(), depth) for lean in leans
    }
    lean = max(leans, key=lambda lean: shelves.ndcg(lists[lean], fresh))
    chosen = lists[lean]
    if not len(chosen.rows):
        raise base.TooLittle(
            "there is nothing that a customer has not bought yet, so nothing new to recommend"
        )
    return lean, curves.learn(chosen.scores, fresh.holds(chosen.rows, chosen.products))


def _owned(stock: Shelves, bought: Truth) -> NDArray[np.bool_]:
    everyone = np.ones(len(stock), bool)
    return Truth(everyone, stock.rows, stock.products).holds(bought.rows, bought.products)
