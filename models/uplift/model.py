"""Uplift model: the effect of a message on a customer's outcome, apart from what would have happened without it.

No customer is observed both with and without a message, so the effect on one customer is never known: it is estimated
from similar customers (models/uplift/cross_fitting.py), and shrunk as far as held-out customers do not confirm it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from models.base import Floats, matrix, read_json, write_json
from models.uplift.cross_fitting import CrossFittedScores, cross_fit
from models.uplift.treatment_data import TreatmentData
from models.uplift.x_learner import XLearner

FILE = "uplift.json"


@dataclass(frozen=True)
class UpliftModel:
    """The effect of a message on a customer's outcome: X-learner scores, shrunk to the average effect.

    `slope` (0 to 1) is how much of the difference between customers to believe, from rows that neither ensemble was
    fitted to; effects are clipped to plus or minus `bound`.
    """

    columns: list[str]
    effect_model: XLearner
    average: float
    centre: float
    slope: float
    bound: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0, **overrides: Any) -> Self:
        """Fit to rows of customers and mailings, with cross-fitting.

        frame: columns customer_key, as_of (the mailing's day) and features. label: columns contacted and outcome.
        `overrides` replace settings of `cross_fit`, which raises InsufficientData where too few were contacted, or
        were not.
        """
        study = TreatmentData.from_frame(frame, label)
        return cls.fit_from_scores(study, cross_fit(study, seed=seed, **overrides), seed=seed)

    @classmethod
    def fit_from_scores(cls, study: TreatmentData, scores: CrossFittedScores, *, seed: int = 0) -> Self:
        """Fit to a study whose rows have cross-fitted scores already."""
        has_overlap, effect, dr_scores = (
            scores.has_overlap,
            scores.effects["x"][scores.has_overlap],
            scores.dr_scores[scores.has_overlap],
        )
        effect_model = XLearner.fit(
            study.design[has_overlap], scores.imputed_effects[has_overlap], study.contacted[has_overlap], seed=seed
        )
        centre, spread = float(effect_model.score(study.design[has_overlap]).mean()), float(np.var(effect))
        slope = float(np.cov(effect, dr_scores)[0, 1] / spread) if spread > 0 else 0.0
        bound = 1.0 if study.objective == "binary" else float(np.ptp(study.outcome))
        return cls(study.columns, effect_model, float(dr_scores.mean()), centre, float(np.clip(slope, 0.0, 1.0)), bound)

    def score(self, frame: pd.DataFrame) -> Floats:
        """The effect of contact on the outcome's probability, or its amount; negative where contact harms: (n,)."""
        centred = self.effect_model.score(matrix(frame, self.columns)) - self.centre
        return np.clip(self.average + self.slope * centred, -self.bound, self.bound)

    def population_average(self) -> float:
        """The average effect of contact."""
        return self.average

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON."""
        self.effect_model.save(folder)
        names = ("columns", "average", "centre", "slope", "bound")
        write_json(
            folder / FILE, {name: getattr(self, name) for name in names} | {"share": self.effect_model.treated_share}
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        saved = read_json(folder / FILE)
        return cls(effect_model=XLearner.load(folder, saved.pop("share")), **saved)
