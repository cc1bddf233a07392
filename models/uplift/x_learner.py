"""Groves: what contact adds to an outcome, learned from scores of single customers that are mostly noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.base import Floats
from models.estimators import boosted_trees

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
TREATED_FILE, CONTROL_FILE = "reached.txt", "others.txt"


@dataclass(frozen=True)
class XLearner:
    """The X-learner's two groves: one learned from those who were contacted, one from those who were not."""

    treated: boosted_trees.BoostedTrees
    control: boosted_trees.BoostedTrees
    treated_share: float

    @classmethod
    def fit(cls, design: Floats, imputed: Floats, contacted: NDArray[np.bool_], *, seed: int) -> Self:
        """Learn from what happened to each against the guess of what would have happened otherwise."""
        fitted = [fit_effect_trees(design[group], imputed[group], seed=seed) for group in (contacted, ~contacted)]
        return cls(fitted[0], fitted[1], float(contacted.mean()))

    def score(self, design: Floats) -> Floats:
        """What contact adds. The grove of the fewer counts for less: what it compares with is known the better."""
        return np.asarray(
            self.treated_share * self.control.score(design) + (1 - self.treated_share) * self.treated.score(design)
        )

    def save(self, folder: Path) -> None:
        """Write both as LightGBM's text."""
        self.treated.save(folder, TREATED_FILE)
        self.control.save(folder, CONTROL_FILE)

    @classmethod
    def load(cls, folder: Path, share: float) -> Self:
        """Read both back."""
        return cls(
            boosted_trees.BoostedTrees.load(folder, TREATED_FILE),
            boosted_trees.BoostedTrees.load(folder, CONTROL_FILE),
            share,
        )


def fit_effect_trees(
    design: Floats, effect_scores: Floats, *, seed: int, weight: Floats | None = None
) -> boosted_trees.BoostedTrees:
    """Trees for what contact adds, from a score of each row; `trust` says how much each counts."""
    params = boosted_trees.lightgbm_params(GROWTH, objective="regression", seed=seed)
    # Leaves of a tenth of a small shop say more than no leaves at all.
    params["min_data_in_leaf"] = max(20, min(params["min_data_in_leaf"], len(effect_scores) // 10))
    return boosted_trees.fit_trees(boosted_trees.TrainingRows(design, effect_scores, weight=weight), params, TREES)
