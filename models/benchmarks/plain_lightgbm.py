"""LightGBM with its default settings on a few features: a reference that is measured and never served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from models.base import Floats, InsufficientData, matrix
from models.estimators import boosted_trees

#: Recency, frequency, tenure and basket value; for replenishment categories, the first three.
CUSTOMER_COLUMNS = ("recency_days", "purchase_days", "tenure_days", "basket_value_mean")
CATEGORY_COLUMNS = ("need_recency_days", "need_times", "need_first_days")
ROUNDS = 100
MIN_OUTCOMES = 100


@dataclass(frozen=True)
class DefaultLightGbm:
    """LightGBM with its default settings and 100 trees."""

    columns: tuple[str, ...]
    model: boosted_trees.BoostedTrees

    @classmethod
    def fit(cls, frame: pd.DataFrame, outcome: Floats, *, amounts: bool = False, seed: int = 0) -> Self:
        """Fit to every row with a known (finite) outcome.

        frame: the columns CATEGORY_COLUMNS where it has them, else CUSTOMER_COLUMNS. outcome: (n,), 0 or 1, or with
        `amounts` any number. Raises InsufficientData for fewer than 100 known outcomes.
        """
        columns = CATEGORY_COLUMNS if CATEGORY_COLUMNS[0] in frame else CUSTOMER_COLUMNS
        is_observed = np.isfinite(outcome)
        if is_observed.sum() < MIN_OUTCOMES:
            raise InsufficientData(
                f"{int(is_observed.sum())} outcomes are known and {MIN_OUTCOMES} are needed; load a longer history"
            )
        params: dict[str, Any] = boosted_trees.lightgbm_params(
            {}, objective="regression" if amounts else "binary", seed=seed
        )
        rows = boosted_trees.TrainingRows(matrix(frame[is_observed], list(columns)), outcome[is_observed])
        return cls(columns, boosted_trees.fit_trees(rows, params, ROUNDS))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(outcome = 1), or an amount that is never negative: (n,)."""
        return np.maximum(self.model.score(matrix(frame, list(self.columns))), 0.0)
