"""Again: what customers buy once more of their own products, by trees or, where they are no better, by a plain rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from models import curves, figures, ranker, shelves
from models.bestsellers import Bestsellers, DecayedFrequency
from models.figures import Scene, Sheet
from models.ranker import Lesson, Ranker
from models.shelves import AGAIN, Flags, Floats, Ints, Picks, Rules, Truth

PLAIN, RANKER = "decayed frequency", "ranker"
#: So many products of a shelf, those bought most and latest, are ranked with care: on Complete Journey the figures
#: of longer lists differ in the fourth digit.
DEEP = 100
#: How much a ranker leans on the plain rule: months differ, and trees know only the last few. On Complete Journey's
#: earlier windows it costs nothing next to the months learned from, and gains where half a year lies between.
LEAN = 0.3


@dataclass(frozen=True)
class Again:
    """What customers buy again; `tried` is how well each way ranked the latest window, in capped NDCG@10."""

    plain: DecayedFrequency
    ranker: Ranker | None
    tried: dict[str, float]

    @property
    def by(self) -> str:
        """The way that serves."""
        return RANKER if self.ranker else PLAIN

    def picks(self, scene: Scene, rules: Rules, n: int) -> Picks:
        """The n products that each customer is likeliest to buy again, with the chance of it."""
        if self.ranker is None:
            return self.plain.again(scene.stock, rules, n)
        entries = _near(scene, self.plain.half_life, max(DEEP, n), rules.allow_pairs(scene.stock))
        worth = _worth(self.ranker, figures.own(scene, entries), scene, entries, self.plain.half_life)
        return _ranked(scene, entries, worth, n).through(self.ranker.curve)

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the trees; the rest is given back as arrays."""
        return {**self.plain.arrays(), **(self.ranker.save(folder, "again_trees") if self.ranker else {})}

    @classmethod
    def load(cls, folder: Path, arrays: dict[str, Any], numbers: dict[str, Any]) -> Self:
        """Read back what `save` wrote."""
        plain = DecayedFrequency.of(arrays, numbers["half_life_days"])
        return cls(plain, Ranker.load(folder, "again_trees", arrays), numbers["again_tried"])


def learn(
    scenes: Sequence[tuple[Scene, Truth]], plain: DecayedFrequency, popular: Bestsellers, *, seed: int, earlier: int
) -> Again:
    """Grow a ranker where one that learned from the `earlier` scenes ranks the latest better than the plain rule.

    `popular` is what sold best before the latest scene; the plain rule breaks ties by it.
    """
    scene, bought = scenes[-1]
    then = DecayedFrequency(popular, plain.half_life, plain.curve)
    tried = {PLAIN: shelves.ndcg(then.again(scene.stock, Rules(), 10), bought)}
    lessons = [_lesson(*each, plain.half_life) for each in scenes] if earlier else []
    sense = lessons[-1].figures.sense if lessons else []
    trial = ranker.learn(lessons[:earlier], seed=seed, sense=sense) if earlier else None
    if trial is None:
        return Again(plain, None, tried)
    latest = lessons[-1]
    entries = _near(scene, plain.half_life, DEEP, np.ones(len(scene.stock.rows), bool))
    worth = _worth(trial, latest.figures, scene, entries, plain.half_life)
    tried[RANKER] = shelves.ndcg(_ranked(scene, entries, worth, 10), bought)
    if tried[RANKER] <= tried[PLAIN]:
        return Again(plain, None, tried)
    curve = curves.learn(worth, latest.came)
    return Again(plain, ranker.learn(lessons, seed=seed, sense=sense, curve=curve), tried)


def _worth(grown: Ranker, sheet: Sheet, scene: Scene, entries: Ints, half_life: int) -> Floats:
    return grown.strength(sheet) + LEAN * np.log(scene.stock.weights(half_life)[entries] + 1e-3)


def _lesson(scene: Scene, bought: Truth, half_life: int) -> Lesson:
    stock = scene.stock
    entries = _near(scene, half_life, DEEP, np.ones(len(stock.rows), bool))
    came = bought.holds(stock.rows[entries], stock.products[entries])
    return Lesson(figures.own(scene, entries), came)


def _near(scene: Scene, half_life: int, deep: int, allowed: Flags) -> Ints:
    """The entries of each shelf that weigh most, in the shelf's order."""
    stock, kept = scene.stock, np.flatnonzero(allowed)
    weight, products = stock.weights(half_life)[kept], stock.products[kept]
    chosen, _ = shelves.best(stock.rows[kept], (weight, -products), deep)
    return np.sort(kept[chosen])


def _ranked(scene: Scene, entries: Ints, worth: Floats, n: int) -> Picks:
    rows, products = scene.stock.rows[entries], scene.stock.products[entries]
    order, ranks = shelves.best(rows, (worth, -products), n)
    return Picks(rows[order], products[order], worth[order], np.full(len(order), AGAIN, np.int8), ranks)
