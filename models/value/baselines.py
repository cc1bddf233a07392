"""Customer-value baselines: BG/NBD with Gamma-Gamma, and the past spending rate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from models import base
from models.base import MODEL_FILE, Floats, read_json, require_columns, write_json
from models.btyd import bg_nbd
from models.value import gamma_gamma, outcomes, seasonal_level
from models.value.gamma_gamma import GammaGamma
from models.value.outcomes import SpendLabel


@dataclass(frozen=True)
class BgNbdGammaGamma:
    """BG/NBD's expected purchases x Gamma-Gamma's spend per purchase x seasonal index. Needs no outcomes."""

    bgnbd: bg_nbd.BgNbd
    gamma_gamma: GammaGamma
    horizon_days: int
    mean: float
    season: float = 1.0

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: SpendLabel, *, seed: int = 0, horizon_days: int = 90) -> Self:
        """Fit the customers of the latest cutoff; outcomes, if there are any, give the mean and the seasonal index.

        label: (n,): spend over the horizon, NaN = not known yet; or columns spent and days.
        """
        latest = base.latest_rows(frame)
        bgnbd, spend_model = gamma_gamma.fit_bgnbd_and_spend(latest)
        spent = outcomes.full_horizon_spend(label, horizon_days)
        labels = spent[np.isfinite(spent)]
        mean = float(
            np.mean(labels if len(labels) else gamma_gamma.expected_spend(bgnbd, spend_model, latest, horizon_days))
        )
        return cls(bgnbd, spend_model, horizon_days, mean, seasonal_index(frame, spent, horizon_days))

    def score(self, frame: pd.DataFrame) -> Floats:
        """Expected spend of each row's customer over the horizon: array (n,)."""
        return self.season * gamma_gamma.expected_spend(self.bgnbd, self.gamma_gamma, frame, self.horizon_days)

    def population_average(self) -> float:
        """Mean spend of a customer over the horizon."""
        return self.mean

    def save(self, folder: Path) -> None:
        """Write the parameters, under the keys of version 0.4.0."""
        names = ("horizon_days", "mean", "season")
        content = {name: getattr(self, name) for name in names}
        parts = {"rhythm": asdict(self.bgnbd), "worth": asdict(self.gamma_gamma)}
        write_json(folder / MODEL_FILE, content | parts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the parameters back."""
        saved = read_json(folder / MODEL_FILE)
        bgnbd, spend_model = bg_nbd.BgNbd(**saved["rhythm"]), GammaGamma(**saved["worth"])
        return cls(bgnbd, spend_model, saved["horizon_days"], saved["mean"], saved["season"])


@dataclass(frozen=True)
class RateValue:
    """Customers continue to spend at their average rate since the first purchase."""

    horizon_days: int
    mean: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: SpendLabel, *, seed: int = 0, horizon_days: int = 90) -> Self:
        """Only the mean spend is estimated.

        label: (n,): spend over the horizon, NaN = not known yet; or columns spent and days.
        """
        return cls(horizon_days, float(np.mean(outcomes.select_labelled_spend(frame, label, horizon_days)[1])))

    def score(self, frame: pd.DataFrame) -> Floats:
        """Expected spend of each row's customer over the horizon: array (n,)."""
        require_columns(frame, [gamma_gamma.TOTAL_COLUMN, gamma_gamma.TENURE_COLUMN])
        total, days = (
            np.nan_to_num(frame[name].to_numpy(np.float64, na_value=np.nan))
            for name in (gamma_gamma.TOTAL_COLUMN, gamma_gamma.TENURE_COLUMN)
        )
        rate: Floats = np.maximum(total, 0.0) / np.maximum(days, gamma_gamma.MIN_RATE_DAYS) * self.horizon_days
        return rate

    def population_average(self) -> float:
        """Mean spend of a customer over the horizon."""
        return self.mean

    def save(self, folder: Path) -> None:
        """Write the two numbers."""
        write_json(folder / MODEL_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the two numbers back."""
        return cls(**read_json(folder / MODEL_FILE))


def seasonal_index(frame: pd.DataFrame, spent: Floats, horizon_days: int) -> float:
    """Actual over expected spend (BG/NBD x Gamma-Gamma) a year ago, from outcomes (n,); 1 if not known."""
    return seasonal_level.seasonal_index(
        frame,
        spent,
        horizon_days,
        lambda rows: gamma_gamma.expected_spend(*gamma_gamma.fit_bgnbd_and_spend(rows), rows, horizon_days),
    )
