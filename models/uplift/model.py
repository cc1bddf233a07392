"""Uplift: whom a message brings back, told apart from those who would have come anyway.

Nobody can be seen both with and without a message, so what it did to one customer is never known: it is guessed from
customers like them (models/uplift/cross_fitting.py), and believed as far as customers not seen before bear it out.
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
    """What a message adds to a customer's outcome: two groves of trees, drawn to the average.

    Customers whom neither had seen say how much of the difference between customers is to be believed (`slope`).
    """

    columns: list[str]
    effect_model: XLearner
    average: float
    centre: float
    slope: float
    bound: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0, **growth: Any) -> Self:
        """Learn from rows of customers and mailings; label: contacted, outcome. Raises TooLittle."""
        study = TreatmentData.from_frame(frame, label)
        return cls.fit_from_scores(study, cross_fit(study, seed=seed, **growth), seed=seed)

    @classmethod
    def fit_from_scores(cls, study: TreatmentData, scores: CrossFittedScores, *, seed: int = 0) -> Self:
        """Learn from a trial whose rows have been scored already."""
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
        """What contact adds for each row: to the chance of the outcome, or to its amount; below 0, it takes away."""
        centred = self.effect_model.score(matrix(frame, self.columns)) - self.centre
        return np.clip(self.average + self.slope * centred, -self.bound, self.bound)

    def population_average(self) -> float:
        """What contact adds on average."""
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
        """Read the trees and the rest back."""
        saved = read_json(folder / FILE)
        return cls(effect_model=XLearner.load(folder, saved.pop("share")), **saved)
