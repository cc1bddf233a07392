"""Boosted trees that rank customer-product pairs by the probability of a purchase within the window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from models.arrays import Flags, Floats
from models.estimators import boosted_trees, isotonic_calibration
from models.recommender.ranking_features import RankingFeatures

#: Chosen on Complete Journey's windows that end before 2017-12-04; up to 400 trees at lower rates, 31 leaves, three
#: averaged ensembles or LambdaRank rank equally well, and take up to ten times as long.
LIGHTGBM_PARAMS: dict[str, Any] = {
    "num_leaves": 15,
    "learning_rate": 0.15,
    "lambda_l2": 5.0,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 127,
}
TREES = 60
#: At most so many pairs that were not bought are sampled, weighted for all of them.
MAX_NEGATIVES = 150_000
#: With fewer purchases, no trees are fitted.
MIN_PURCHASES = 200


@dataclass(frozen=True)
class RankingExamples:
    """Features of pairs at one cutoff, and whether each was bought in the window after it: `is_bought` (n_pairs,)."""

    features: RankingFeatures
    is_bought: Flags


@dataclass(frozen=True)
class CandidateRanker:
    """Boosted trees, and the curve from their raw score to the probability of a purchase."""

    trees: boosted_trees.BoostedTrees
    curve: isotonic_calibration.IsotonicCalibration

    def raw_scores(self, features: RankingFeatures) -> Floats:
        """Raw score of each pair, in log odds: (n_pairs,). The higher, the likelier a purchase."""
        return self.trees.raw_score(features.values)

    def save(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the trees to folder/{name}.txt, and return the curve as named arrays for the caller to write."""
        self.trees.save(folder, f"{name}.txt")
        return {f"{name}_strengths": self.curve.strengths, f"{name}_shares": self.curve.shares}

    @classmethod
    def load(cls, folder: Path, name: str, arrays: dict[str, Any]) -> Self | None:
        """Read what `save` wrote; None where no ranker was saved."""
        if f"{name}_shares" not in arrays:
            return None
        curve = isotonic_calibration.IsotonicCalibration(arrays[f"{name}_strengths"], arrays[f"{name}_shares"])
        return cls(boosted_trees.BoostedTrees.load(folder, f"{name}.txt"), curve)


def fit(
    examples: Sequence[RankingExamples],
    *,
    seed: int,
    monotone_constraints: Sequence[int] = (),
    curve: isotonic_calibration.IsotonicCalibration | None = None,
) -> CandidateRanker | None:
    """Fit trees to examples; None where fewer than MIN_PURCHASES pairs were bought, or were not.

    `monotone_constraints` holds a value for each feature: 1 where the score may only rise with it, -1 where it may
    only fall, else 0. Without a curve, probabilities are the trees' own (the logistic function).
    """
    is_bought = np.concatenate([example.is_bought for example in examples])
    if min(is_bought.sum(), (~is_bought).sum()) < MIN_PURCHASES:
        return None
    rows, weight = _sample(is_bought, seed)
    values = np.concatenate([example.features.values for example in examples])[rows]
    settings = LIGHTGBM_PARAMS | {"min_data_in_leaf": int(np.clip(len(rows) // 1_000, 20, 200))}
    params = boosted_trees.lightgbm_params(
        settings | ({"monotone_constraints": list(monotone_constraints)} if monotone_constraints else {}),
        objective="binary",
        seed=seed,
    )
    example = boosted_trees.TrainingRows(
        values, is_bought[rows].astype(np.float64), weight=weight, names=examples[0].features.names
    )
    return CandidateRanker(boosted_trees.fit_trees(example, params, TREES), curve or _logistic_curve())


def _sample(is_bought: Flags, seed: int) -> tuple[Any, Floats]:
    positives, negatives = np.flatnonzero(is_bought), np.flatnonzero(~is_bought)
    sampled = np.random.default_rng(seed).choice(negatives, min(MAX_NEGATIVES, len(negatives)), replace=False)
    rows = np.sort(np.concatenate([positives, sampled]))
    return rows, np.where(is_bought[rows], 1.0, len(negatives) / len(sampled))


def _logistic_curve() -> isotonic_calibration.IsotonicCalibration:
    log_odds = np.linspace(-12.0, 12.0, 481)
    return isotonic_calibration.IsotonicCalibration(log_odds, 1.0 / (1.0 + np.exp(-log_odds)))
