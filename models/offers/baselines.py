"""Baseline of the offer model: affinity times the household's redemption rate."""

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
from models.offers.model import DEFAULT_RATE, MIN_TO_CALIBRATE, log_strength


@dataclass(frozen=True)
class AffinityRate:
    """Affinity to the offer's products times the customer's redemption rate; ranks well, and needs no outcomes."""

    offset: float
    slope: float
    base: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.Series[Any] | Floats, *, seed: int = 0) -> Self:
        """Fit P(redemption) as a logistic function of the strength; with few redemptions, in proportion to it.

        frame: a row per customer and offer, with the columns of `log_strength`. label: (n,), 1 = redeemed, 0 = not,
        NaN = unknown.
        """
        outcome = np.asarray(label, dtype=np.float64)
        is_observed = np.isfinite(outcome)
        strength, redeemed = log_strength(frame)[is_observed], float(outcome[is_observed].sum())
        base = (redeemed + 1) / (is_observed.sum() + 1 / DEFAULT_RATE)
        if min(redeemed, is_observed.sum() - redeemed) < MIN_TO_CALIBRATE:
            mean = float(np.log(np.mean(np.exp(strength)))) if is_observed.any() else float(np.log(DEFAULT_RATE))
            return cls(float(logit(base)) - mean, 1.0, float(base))
        offset, slope = logistic_regression.fit_weights(strength[:, None], outcome[is_observed])
        return cls(float(offset), max(float(slope), 0.0), float(base))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(this customer redeems this offer): (n,)."""
        probability: Floats = expit(self.offset + self.slope * log_strength(frame))
        return np.clip(probability, bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY)

    def population_average(self) -> float:
        """The share of offers that are redeemed."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write offset, slope and base rate as JSON."""
        write_json(folder / MODEL_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        return cls(**read_json(folder / MODEL_FILE))
