"""Groves: what contact adds to an outcome, learned from scores of single customers that are mostly noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models import trees
from models.base import Floats

#: Few trees of few and large leaves.
GROWTH: dict[str, Any] = {
    "num_leaves": 4,
    "learning_rate": 0.05,
    "min_data_in_leaf": 200,
    "lambda_l2": 10.0,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
}
TREES = 50
REACHED, OTHERS = "reached.txt", "others.txt"


@dataclass(frozen=True)
class Groves:
    """The X-learner's two groves: one learned from those who were contacted, one from those who were not."""

    reached: trees.Trees
    others: trees.Trees
    share: float

    @classmethod
    def grow(cls, design: Floats, imputed: Floats, contacted: NDArray[np.bool_], *, seed: int) -> Self:
        """Learn from what happened to each against the guess of what would have happened otherwise."""
        groves = [grow(design[who], imputed[who], seed=seed) for who in (contacted, ~contacted)]
        return cls(groves[0], groves[1], float(contacted.mean()))

    def score(self, design: Floats) -> Floats:
        """What contact adds. The grove of the fewer counts for less: what it compares with is known the better."""
        return np.asarray(self.share * self.others.score(design) + (1 - self.share) * self.reached.score(design))

    def save(self, folder: Path) -> None:
        """Write both as LightGBM's text."""
        self.reached.save(folder, REACHED)
        self.others.save(folder, OTHERS)

    @classmethod
    def load(cls, folder: Path, share: float) -> Self:
        """Read both back."""
        return cls(trees.Trees.load(folder, REACHED), trees.Trees.load(folder, OTHERS), share)


def grow(design: Floats, gain: Floats, *, seed: int, trust: Floats | None = None) -> trees.Trees:
    """Trees for what contact adds, from a score of each row; `trust` says how much each counts."""
    how = trees.settings(GROWTH, objective="regression", seed=seed)
    # Leaves of a tenth of a small shop say more than no leaves at all.
    how["min_data_in_leaf"] = max(20, min(how["min_data_in_leaf"], len(gain) // 10))
    return trees.grow(trees.Rows(design, gain, weight=trust), how, TREES)
