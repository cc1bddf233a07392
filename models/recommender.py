"""The recommender: what a customer will buy again, and what they have never bought but would.

`again` ranks a customer's own products by habit, or by decayed frequency where that has been no worse; `new`
ranks by taste. Each goes through its own rising curve to the chance of a purchase within the window, so that
one list can hold both.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from models import base, bestsellers, curves, habits, shelves, tastes
from models.bestsellers import DecayedFrequency, Past
from models.habits import Habits
from models.shelves import Flags, Floats, Ints, Picks, Rules, Shelves, Truth
from models.tastes import Singles, Tastes

#: How much the popularity of a product may count beside the customer's taste; learning chooses one.
LEANS = (0.02, 0.05, 0.1, 0.2)


class Recommender:
    """Ranks products for customers: what they buy again, what is new to them, and both in one list."""

    def __init__(self, again: Again, new: New) -> None:
        self.again = again
        self.new = new

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: Any,
        *,
        seed: int = 0,
        window_days: int = 28,
        factors: int = 48,
        iterations: int = 8,
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
        learn = {
            "seed": seed,
            "window_days": window_days,
            "factors": factors,
            "iterations": iterations,
            "threads": threads,
        }
        then = tastes.factorise(bestsellers.at(frame, past[-1].moment), **learn)
        new = _learn_new(then, past[-1], leans)
        latest = frame["as_of"].max()
        if latest != past[-1].moment:
            new = replace(new, tastes=tastes.factorise(bestsellers.at(frame, latest), **learn))
        return cls(again, new)

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
        stock = shelves.read(frame, {*self.again.columns, *self.new.columns})
        rules = Rules(exclude, only)
        made: dict[str, Picks] = {}
        if {"any", "again"} & set(lists):
            made["again"] = self.again.picks(stock, rules, n)
        if {"any", "new"} & set(lists):
            made["new"] = self._fresh(stock, rules, n)
        if "any" in lists:
            made["any"] = shelves.merge((made["again"], made["new"]), n)
        return shelves.table(stock, {name: made[name] for name in lists})

    def _fresh(self, stock: Shelves, rules: Rules, n: int) -> Picks:
        liked = self.new.picks(stock, rules, n)
        missing = n - np.bincount(liked.rows, minlength=len(stock))
        popular = self.again.plain.bestsellers.fill(stock, rules, missing, taken=liked)
        return shelves.follow(liked, popular, n)

    def typical(self, n: int = 50) -> tuple[Ints, Floats]:
        """The shop's n best sellers: product keys, and the share of customers who bought each lately."""
        return self.again.plain.typical(n)

    @property
    def settings(self) -> dict[str, Any]:
        """What was settled while learning, for the record."""
        return {
            **self.again.plain.settings,
            "again_by": "habits" if self.again.habits else "decayed frequency",
            "factorised_products": len(self.new.tastes.products),
            "factors": self.new.tastes.factors.shape[1],
            "regularisation": round(self.new.tastes.regularisation, 6),
            "lean": self.new.lean,
        }

    def save(self, folder: Path) -> None:
        """Write arrays.npz and recommender.json into an existing folder; nothing of any customer."""
        bestsellers.write_arrays(folder, **self.new.arrays(), **self.again.arrays())
        base.write_json(folder / "recommender.json", {**self.new.numbers(), **self.again.numbers()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        arrays, numbers = bestsellers.read_arrays(folder), base.read_json(folder / "recommender.json")
        return cls(Again.of(arrays, numbers), New.of(arrays, numbers))


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

    def numbers(self) -> dict[str, Any]:
        """The half-life of the plain rule."""
        return {"half_life_days": self.plain.half_life}

    @classmethod
    def of(cls, arrays: dict[str, Any], numbers: dict[str, Any]) -> Self:
        """The same again, from what `arrays` and `numbers` gave."""
        plain = DecayedFrequency.of(arrays, numbers["half_life_days"])
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


@dataclass(frozen=True)
class New:
    """What customers never bought but like best: by taste and a lean to what sells well, each with its chance.

    `pull` is what a strength, the customer's activity and everybody share in the log-odds of a purchase: a busy
    customer tries more. It leaves a customer's order as it is. `half_life` (days) is that of the activity.
    """

    tastes: Tastes
    lean: float
    half_life: int
    pull: Floats
    curve: curves.Curve

    @property
    def columns(self) -> list[str]:
        """The columns of a shelf that are needed."""
        return [shelves.weights_name(self.half_life), shelves.weights_name(self.tastes.half_life)]

    def picks(self, stock: Shelves, rules: Rules, n: int) -> Picks:
        """The n products that each customer is likeliest to buy for the first time, with the chance of it."""
        liking = self.tastes.fold(stock)
        found = tastes.discover(self.tastes.products, self._sides, liking, stock, rules, n)
        odds = _beside(found, stock, self.half_life) @ self.pull[:-1] + self.pull[-1]
        return replace(found, scores=self.curve(odds))

    @cached_property
    def _sides(self) -> Singles:
        return self.tastes.sides(self.lean)

    def arrays(self) -> dict[str, Any]:
        """All that was learned, but for its single numbers."""
        return {
            "factorised": self.tastes.products,
            "factors": self.tastes.factors,
            "heat": self.tastes.heat,
            "new_pull": self.pull,
            "new_strengths": self.curve.strengths,
            "new_shares": self.curve.shares,
        }

    def numbers(self) -> dict[str, Any]:
        """The single numbers that were learned."""
        return {
            "regularisation": self.tastes.regularisation,
            "taste_half_life_days": self.tastes.half_life,
            "activity_half_life_days": self.half_life,
            "lean": self.lean,
        }

    @classmethod
    def of(cls, arrays: dict[str, Any], numbers: dict[str, Any]) -> Self:
        """The same again, from what `arrays` and `numbers` gave."""
        kept = (arrays["factorised"], arrays["factors"], arrays["heat"])
        known = Tastes(*kept, numbers["regularisation"], numbers["taste_half_life_days"])
        curve = curves.Curve(arrays["new_strengths"], arrays["new_shares"])
        return cls(known, numbers["lean"], numbers["activity_half_life_days"], arrays["new_pull"], curve)


def _learn_new(known: Tastes, then: Past, leans: Sequence[float], depth: int = 100) -> New:
    """The lean with the best `new` lists of ten, and how often their first hundred places came true."""
    short = shelves.half_lives(then.frame)[0]
    stock = shelves.read(then.frame, {shelves.weights_name(short), shelves.weights_name(known.half_life)})
    fresh = then.bought.only(~_owned(stock, then.bought))
    liking = known.fold(stock)
    lists = {lean: tastes.discover(known.products, known.sides(lean), liking, stock, Rules(), depth) for lean in leans}
    lean = max(leans, key=lambda lean: shelves.ndcg(lists[lean], fresh))
    found = lists[lean]
    if not len(found.rows):
        raise base.TooLittle("there is nothing that a customer has not bought yet, so nothing new to recommend")
    beside, came = _beside(found, stock, short), fresh.holds(found.rows, found.products)
    pull = _rising(habits.logistic(beside, came))
    return New(known, lean, short, pull, curves.learn(beside @ pull[:-1] + pull[-1], came))


def _beside(found: Picks, stock: Shelves, half_life: int) -> Floats:
    return np.column_stack([found.scores, habits.activity(stock, half_life)[found.rows]])


def _rising(pull: Floats) -> Floats:
    # Chances must fall in the order of the strengths, even where the sample says that they hardly do.
    return np.array([max(pull[0], 1e-3), *pull[1:]])


def _owned(stock: Shelves, bought: Truth) -> Flags:
    everyone = np.ones(len(stock), bool)
    return Truth(everyone, stock.rows, stock.products).holds(bought.rows, bought.products)
