"""Ranker: trees that order products by how likely a customer is to buy each of them within the window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from models.arrays import Flags, Floats
from models.estimators import boosted_trees, isotonic_calibration
from models.recommender.ranking_features import RankingFeatures

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
MAX_NEGATIVES = 150_000
#: Fewer purchases than this are too few to grow trees from.
MIN_PURCHASES = 200


@dataclass(frozen=True)
class RankingExamples:
    """Figures of some pairs at one moment, and which of them came true in the window after it."""

    features: RankingFeatures
    is_bought: Flags


@dataclass(frozen=True)
class CandidateRanker:
    """Trees, and the curve from the strength of what they say to the chance of a purchase."""

    trees: boosted_trees.BoostedTrees
    curve: isotonic_calibration.IsotonicCalibration

    def raw_scores(self, features: RankingFeatures) -> Floats:
        """What the trees add up to, a pair each: the higher, the likelier."""
        return self.trees.raw_score(features.values)

    def save(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the trees; the curve is given back as arrays, for whoever keeps arrays."""
        self.trees.save(folder, f"{name}.txt")
        return {f"{name}_strengths": self.curve.strengths, f"{name}_shares": self.curve.shares}

    @classmethod
    def load(cls, folder: Path, name: str, arrays: dict[str, Any]) -> Self | None:
        """Read back what `save` wrote; None where there was nothing to save."""
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
    """Grow trees from lessons; None where too little came true. Without a curve the chances are the trees' own.

    `sense` says per figure whether more of it may only raise (1) or only lower (-1) the answer.
    """
    is_bought = np.concatenate([example.is_bought for example in examples])
    if min(is_bought.sum(), (~is_bought).sum()) < MIN_PURCHASES:
        return None
    rows, weight = _sample(is_bought, seed)
    values = np.concatenate([example.features.values for example in examples])[rows]
    growth = GROWTH | {"min_data_in_leaf": int(np.clip(len(rows) // 1_000, 20, 200))}
    params = boosted_trees.lightgbm_params(
        growth | ({"monotone_constraints": list(monotone_constraints)} if monotone_constraints else {}),
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
