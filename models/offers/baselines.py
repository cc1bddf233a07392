"""The baseline of offers: affinity times the household's redemption rate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from models.base import MODEL_FILE, Floats, read_json, write_json
from models.btyd import bg_nbd
from models.estimators import logistic_regression
from models.offers import model as offers_model


@dataclass(frozen=True)
class AffinityRate:
    """Affinity to the offer's products times how often the customer redeems; ranks well, and needs no outcomes."""

    offset: float
    slope: float
    base: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.Series[Any] | Floats, *, seed: int = 0) -> Self:
        """Draw the line from strength to probability; with few redemptions, simply in proportion to it."""
        outcome = np.asarray(label, dtype=np.float64)
        is_observed = np.isfinite(outcome)
        strength, redeemed = offers_model.log_strength(frame)[is_observed], float(outcome[is_observed].sum())
        base = (redeemed + 1) / (is_observed.sum() + 1 / offers_model.DEFAULT_RATE)
        if min(redeemed, is_observed.sum() - redeemed) < offers_model.MIN_TO_CALIBRATE:
            mean = (
                float(np.log(np.mean(np.exp(strength))))
                if is_observed.any()
                else float(np.log(offers_model.DEFAULT_RATE))
            )
            return cls(float(logit(base)) - mean, 1.0, float(base))
        offset, slope = logistic_regression.fit_weights(strength[:, None], outcome[is_observed])
        return cls(float(offset), max(float(slope), 0.0), float(base))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(this customer redeems this offer), a row each."""
        probability: Floats = expit(self.offset + self.slope * offers_model.log_strength(frame))
        return np.clip(probability, bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY)

    def population_average(self) -> float:
        """The share of offers that are redeemed."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the line."""
        write_json(folder / MODEL_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the line back."""
        return cls(**read_json(folder / MODEL_FILE))
