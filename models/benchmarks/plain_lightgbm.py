"""Plain: what people try first, LightGBM as it comes over a handful of figures; it is measured and never serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from models import trees
from models.base import Floats, TooLittle, matrix

#: Recency, frequency, age and what a visit is worth; of needs, the first three.
CUSTOMERS = ("recency_days", "purchase_days", "tenure_days", "basket_value_mean")
NEEDS = ("need_recency_days", "need_times", "need_first_days")
ROUNDS = 100
FEWEST = 100


@dataclass(frozen=True)
class Plain:
    """LightGBM with the settings it comes with."""

    columns: tuple[str, ...]
    grown: trees.Trees

    @classmethod
    def fit(cls, frame: pd.DataFrame, outcome: Floats, *, amounts: bool = False, seed: int = 0) -> Self:
        """Learn from every row whose outcome is known: 0 or 1, or amounts. Raises TooLittle under 100 rows."""
        columns = NEEDS if NEEDS[0] in frame else CUSTOMERS
        known = np.isfinite(outcome)
        if known.sum() < FEWEST:
            raise TooLittle(f"{int(known.sum())} outcomes are known and {FEWEST} are needed; load a longer history")
        how: dict[str, Any] = trees.settings({}, objective="regression" if amounts else "binary", seed=seed)
        rows = trees.Rows(matrix(frame[known], list(columns)), outcome[known])
        return cls(columns, trees.grow(rows, how, ROUNDS))

    def score(self, frame: pd.DataFrame) -> Floats:
        """A chance, or an amount that is never negative: array (rows,)."""
        return np.maximum(self.grown.score(matrix(frame, list(self.columns))), 0.0)
