"""Ranker: trees that order products by how likely a customer is to buy each of them within the window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from models import curves, trees
from models.figures import Sheet
from models.shelves import Flags, Floats

#: Chosen on Complete Journey's windows that end before 2017-12-04; up to 400 slower trees, of 31 leaves, three groves
#: of them or lambdarank rank alike, and take up to ten times as long.
GROWTH: dict[str, Any] = {
    "num_leaves": 15,
    "learning_rate": 0.15,
    "lambda_l2": 5.0,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 127,
}
TREES = 60
#: Of the pairs that came to nothing so many are looked at, each for as many as it stands for.
PASSED_OVER = 150_000
#: Fewer purchases than this are too few to grow trees from.
FEWEST = 200


@dataclass(frozen=True)
class Lesson:
    """Figures of some pairs at one moment, and which of them came true in the window after it."""

    figures: Sheet
    came: Flags


@dataclass(frozen=True)
class Ranker:
    """Trees, and the curve from the strength of what they say to the chance of a purchase."""

    trees: trees.Trees
    curve: curves.Curve

    def strength(self, figures: Sheet) -> Floats:
        """What the trees add up to, a pair each: the higher, the likelier."""
        return self.trees.added(figures.values)

    def save(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the trees; the curve is given back as arrays, for whoever keeps arrays."""
        self.trees.save(folder, f"{name}.txt")
        return {f"{name}_strengths": self.curve.strengths, f"{name}_shares": self.curve.shares}

    @classmethod
    def load(cls, folder: Path, name: str, arrays: dict[str, Any]) -> Self | None:
        """Read back what `save` wrote; None where there was nothing to save."""
        if f"{name}_shares" not in arrays:
            return None
        curve = curves.Curve(arrays[f"{name}_strengths"], arrays[f"{name}_shares"])
        return cls(trees.Trees.load(folder, f"{name}.txt"), curve)


def learn(
    lessons: Sequence[Lesson], *, seed: int, sense: Sequence[int] = (), curve: curves.Curve | None = None
) -> Ranker | None:
    """Grow trees from lessons; None where too little came true. Without a curve the chances are the trees' own.

    `sense` says per figure whether more of it may only raise (1) or only lower (-1) the answer.
    """
    came = np.concatenate([lesson.came for lesson in lessons])
    if min(came.sum(), (~came).sum()) < FEWEST:
        return None
    rows, weight = _sample(came, seed)
    values = np.concatenate([lesson.figures.values for lesson in lessons])[rows]
    growth = GROWTH | {"min_data_in_leaf": int(np.clip(len(rows) // 1_000, 20, 200))}
    how = trees.settings(
        growth | ({"monotone_constraints": list(sense)} if sense else {}), objective="binary", seed=seed
    )
    lesson = trees.Rows(values, came[rows].astype(np.float64), weight=weight, names=lessons[0].figures.names)
    return Ranker(trees.grow(lesson, how, TREES), curve or _plain())


def _sample(came: Flags, seed: int) -> tuple[Any, Floats]:
    true, passed = np.flatnonzero(came), np.flatnonzero(~came)
    some = np.random.default_rng(seed).choice(passed, min(PASSED_OVER, len(passed)), replace=False)
    rows = np.sort(np.concatenate([true, some]))
    return rows, np.where(came[rows], 1.0, len(passed) / len(some))


def _plain() -> curves.Curve:
    odds = np.linspace(-12.0, 12.0, 481)
    return curves.Curve(odds, 1.0 / (1.0 + np.exp(-odds)))
