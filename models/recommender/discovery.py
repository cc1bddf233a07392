"""New: what a customer has never bought and would, by tastes and what else is known of both, or by what sells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from models import curves, figures, ranker, shelves, tastes
from models.base import TooLittle
from models.bestsellers import Bestsellers
from models.figures import Scene
from models.ranker import Lesson, Ranker
from models.shelves import Flags, Picks, Rules, Shelves, Truth

POPULAR, TASTES, RANKER = "popularity", "collaborative filtering", "ranker"
#: So many products that suit a customer's taste are ranked with care.
DEEP = 150


@dataclass(frozen=True)
class New:
    """What customers try; `tried` is how well each way ranked the latest window, in capped NDCG@10.

    `lean` is how much the popularity of a product counts beside the customer's taste. `curve` leads from the strength
    of a taste to the chance of a purchase; a ranker has its own.
    """

    by: str
    lean: float
    curve: curves.Curve
    ranker: Ranker | None
    tried: dict[str, float]

    def picks(self, scene: Scene, rules: Rules, n: int) -> Picks:
        """The n products that each customer is likeliest to buy for the first time, with the chance of it."""
        if self.by == POPULAR:
            return shelves.none()
        if self.ranker is None:
            return _found(scene, self.lean, rules, n).through(self.curve)
        found = _found(scene, self.lean, rules, max(DEEP, n))
        return _ranked(found, self.ranker.strength(figures.fresh(scene, found)), n).through(self.ranker.curve)

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the trees; the rest is given back as arrays."""
        curve = {"new_strengths": self.curve.strengths, "new_shares": self.curve.shares}
        return {**curve, **(self.ranker.save(folder, "new_trees") if self.ranker else {})}

    @classmethod
    def load(cls, folder: Path, arrays: dict[str, Any], numbers: dict[str, Any]) -> Self:
        """Read back what `save` wrote."""
        curve = curves.Curve(arrays["new_strengths"], arrays["new_shares"])
        grown = Ranker.load(folder, "new_trees", arrays)
        return cls(numbers["new_by"], numbers["lean"], curve, grown, numbers["new_tried"])


def learn(
    scenes: Sequence[tuple[Scene, Truth]], popular: Bestsellers, *, leans: Sequence[float], seed: int, earlier: int
) -> New:
    """The simplest of three ways that no other beat at the latest scene; a ranker learns from the `earlier` ones first.

    `popular` is what sold best before the latest scene.
    """
    scene, bought = scenes[-1][0], _firsts(*scenes[-1])
    lean = _best_lean(*scenes[max(earlier, 1) - 1], leans)
    found = _found(scene, lean, Rules(), DEEP)
    if not len(found.rows):
        raise TooLittle("there is nothing that a customer has not bought yet, so nothing new to recommend")
    everybody = np.full(len(scene.stock), 10)
    tried = {
        POPULAR: shelves.ndcg(popular.fill(scene.stock, Rules(), everybody), bought),
        TASTES: shelves.ndcg(found, bought),
    }
    curve = curves.learn(found.scores, bought.holds(found.rows, found.products))
    simple = New(max(tried, key=lambda way: tried[way]), lean, curve, None, tried)
    lessons = [_lesson(scene, bought, lean) for scene, bought in scenes] if earlier else []
    trial = ranker.learn(lessons[:earlier], seed=seed) if earlier else None
    if trial is None:
        return simple
    worth = trial.strength(lessons[-1].figures)
    tried[RANKER] = shelves.ndcg(_ranked(found, worth, 10), bought)
    if tried[RANKER] <= tried[simple.by]:
        return simple
    grown = ranker.learn(lessons, seed=seed, curve=curves.learn(worth, lessons[-1].came))
    return replace(simple, by=RANKER, ranker=grown)


def _best_lean(scene: Scene, bought: Truth, leans: Sequence[float]) -> float:
    """The lean with the best lists of ten, at a scene before the one that is judged where there is one."""
    firsts = _firsts(scene, bought)
    return max(leans, key=lambda lean: shelves.ndcg(_found(scene, lean, Rules(), 10), firsts))


def _lesson(scene: Scene, bought: Truth, lean: float) -> Lesson:
    found = _found(scene, lean, Rules(), DEEP)
    return Lesson(figures.fresh(scene, found), bought.holds(found.rows, found.products))


def _found(scene: Scene, lean: float, rules: Rules, n: int) -> Picks:
    """What suits each customer's taste best and is not on their shelf; scores are strengths, not yet chances."""
    known = scene.known.tastes
    return tastes.discover(known.products, known.sides(lean), scene.liking, scene.stock, rules, n)


def _ranked(found: Picks, worth: np.ndarray, n: int) -> Picks:
    order, ranks = shelves.best(found.rows, (worth, -found.products), n)
    return Picks(found.rows[order], found.products[order], worth[order], found.sources[order], ranks)


def _firsts(scene: Scene, bought: Truth) -> Truth:
    """What was bought in the window and never before."""
    return bought.only(~_owned(scene.stock, bought))


def _owned(stock: Shelves, bought: Truth) -> Flags:
    everyone = np.ones(len(stock), bool)
    return Truth(everyone, stock.rows, stock.products).holds(bought.rows, bought.products)
