"""Uplift: whom a message brings back, told apart from those who would have come anyway.

Nobody can be seen both with and without a message, so what it did to one customer is never known: it is guessed from
customers like them (models/unseen.py), and believed as far as customers not seen before bear it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from models.base import Floats, matrix, read_json, write_json
from models.groves import Groves
from models.trial import Trial
from models.unseen import Tried, tried

FILE = "uplift.json"


@dataclass(frozen=True)
class Uplift:
    """What a message adds to a customer's outcome: two groves of trees, drawn to the average.

    Customers whom neither had seen say how much of the difference between customers is to be believed (`slope`).
    """

    columns: list[str]
    groves: Groves
    average: float
    centre: float
    slope: float
    bound: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0, **growth: Any) -> Self:
        """Learn from rows of customers and mailings; label: contacted, outcome. Raises TooLittle."""
        trial = Trial.of(frame, label)
        return cls.of(trial, tried(trial, seed=seed, **growth), seed=seed)

    @classmethod
    def of(cls, trial: Trial, seen: Tried, *, seed: int = 0) -> Self:
        """Learn from a trial whose rows have been scored already."""
        kept, effect, gain = seen.kept, seen.effects["x"][seen.kept], seen.gain[seen.kept]
        grown = Groves.grow(trial.design[kept], seen.imputed[kept], trial.contacted[kept], seed=seed)
        centre, spread = float(grown.score(trial.design[kept]).mean()), float(np.var(effect))
        slope = float(np.cov(effect, gain)[0, 1] / spread) if spread > 0 else 0.0
        bound = 1.0 if trial.objective == "binary" else float(np.ptp(trial.outcome))
        return cls(trial.columns, grown, float(gain.mean()), centre, float(np.clip(slope, 0.0, 1.0)), bound)

    def score(self, frame: pd.DataFrame) -> Floats:
        """What contact adds for each row: to the chance of the outcome, or to its amount; below 0, it takes away."""
        apart = self.groves.score(matrix(frame, self.columns)) - self.centre
        return np.clip(self.average + self.slope * apart, -self.bound, self.bound)

    def typical(self) -> float:
        """What contact adds on average."""
        return self.average

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON."""
        self.groves.save(folder)
        names = ("columns", "average", "centre", "slope", "bound")
        write_json(folder / FILE, {name: getattr(self, name) for name in names} | {"share": self.groves.share})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the rest back."""
        saved = read_json(folder / FILE)
        return cls(groves=Groves.load(folder, saved.pop("share")), **saved)
