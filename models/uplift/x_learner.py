"""X-learner (Künzel 2019): the effect of contact on an outcome, from noisy scores of single customers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.base import Floats
from models.estimators import boosted_trees

#: Few trees with few, large leaves.
LIGHTGBM_PARAMS: dict[str, Any] = {
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
    """The X-learner's two ensembles: one fitted to the customers who were contacted, one to those who were not."""

    treated: boosted_trees.BoostedTrees
    control: boosted_trees.BoostedTrees
    treated_share: float

    @classmethod
    def fit(cls, design: Floats, imputed: Floats, contacted: NDArray[np.bool_], *, seed: int) -> Self:
        """Fit both ensembles to imputed effects: the outcome against the predicted outcome of the other treatment.

        design: (n_rows, n_features). imputed, contacted: (n_rows,).
        """
        fitted = [fit_effect_trees(design[group], imputed[group], seed=seed) for group in (contacted, ~contacted)]
        return cls(fitted[0], fitted[1], float(contacted.mean()))

    def score(self, design: Floats) -> Floats:
        """The effect of contact: (n_rows,).

        The ensemble of the smaller group weighs more: its imputed effects compare with the better-estimated outcomes
        of the larger one.
        """
        return np.asarray(
            self.treated_share * self.control.score(design) + (1 - self.treated_share) * self.treated.score(design)
        )

    def save(self, folder: Path) -> None:
        """Write both ensembles as LightGBM's text."""
        self.treated.save(folder, TREATED_FILE)
        self.control.save(folder, CONTROL_FILE)

    @classmethod
    def load(cls, folder: Path, share: float) -> Self:
        """Read what `save` wrote; `share` is that of contacted customers."""
        return cls(
            boosted_trees.BoostedTrees.load(folder, TREATED_FILE),
            boosted_trees.BoostedTrees.load(folder, CONTROL_FILE),
            share,
        )


def fit_effect_trees(
    design: Floats, effect_scores: Floats, *, seed: int, weight: Floats | None = None
) -> boosted_trees.BoostedTrees:
    """Fit trees to an effect score per row: design (n_rows, n_features), effect_scores and weight (n_rows,)."""
    params = boosted_trees.lightgbm_params(LIGHTGBM_PARAMS, objective="regression", seed=seed)
    # In a small shop, leaves of a tenth of the rows are better than none.
    params["min_data_in_leaf"] = max(20, min(params["min_data_in_leaf"], len(effect_scores) // 10))
    return boosted_trees.fit_trees(boosted_trees.TrainingRows(design, effect_scores, weight=weight), params, TREES)
