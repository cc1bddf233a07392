"""Spending: what a visit is usually worth, and the plain rules of what a customer will spend."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from models import base
from models.base import MODEL_FILE, Floats, read_json, require_columns, write_json
from models.btyd import bg_nbd
from models.value import gamma_gamma, seasonal_level
from models.value import outcomes as value_outcomes
from models.value.gamma_gamma import GammaGamma
from models.value.outcomes import SpendLabel


@dataclass(frozen=True)
class BgNbdGammaGamma:
    """Buy till you die, times what a visit is worth, times what the season made of it a year ago. Needs no outcomes."""

    rhythm: bg_nbd.BgNbd
    worth: GammaGamma
    horizon_days: int
    mean: float
    season: float = 1.0

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: SpendLabel, *, seed: int = 0, horizon_days: int = 90) -> Self:
        """Fit the latest moment's customers; outcomes, if there are any, give what is typical, and the season."""
        latest = base.latest_rows(frame)
        bgnbd, spend_model = gamma_gamma.fit_bgnbd_and_spend(latest)
        spent = value_outcomes.full_horizon_spend(label, horizon_days)
        labels = spent[np.isfinite(spent)]
        mean = float(
            np.mean(labels if len(labels) else gamma_gamma.expected_spend(bgnbd, spend_model, latest, horizon_days))
        )
        return cls(bgnbd, spend_model, horizon_days, mean, seasonal_index(frame, spent, horizon_days))

    def score(self, frame: pd.DataFrame) -> Floats:
        """What each row's customer is expected to spend over the horizon."""
        return self.season * gamma_gamma.expected_spend(self.rhythm, self.worth, frame, self.horizon_days)

    def population_average(self) -> float:
        """What customers spend over the horizon on average."""
        return self.mean

    def save(self, folder: Path) -> None:
        """Write the parameters."""
        write_json(folder / MODEL_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read them back."""
        saved = read_json(folder / MODEL_FILE)
        bgnbd, spend_model = bg_nbd.BgNbd(**saved["rhythm"]), GammaGamma(**saved["worth"])
        return cls(bgnbd, spend_model, saved["horizon_days"], saved["mean"], saved["season"])


@dataclass(frozen=True)
class RateValue:
    """They will go on spending as they have on average since their first purchase."""

    horizon_days: int
    mean: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: SpendLabel, *, seed: int = 0, horizon_days: int = 90) -> Self:
        """There is nothing to learn but what is typical."""
        return cls(horizon_days, float(np.mean(value_outcomes.select_labelled_spend(frame, label, horizon_days)[1])))

    def score(self, frame: pd.DataFrame) -> Floats:
        """What each row's customer is expected to spend over the horizon."""
        require_columns(frame, [gamma_gamma.TOTAL_COLUMN, gamma_gamma.TENURE_COLUMN])
        total, days = (
            np.nan_to_num(frame[name].to_numpy(np.float64, na_value=np.nan))
            for name in (gamma_gamma.TOTAL_COLUMN, gamma_gamma.TENURE_COLUMN)
        )
        rate: Floats = np.maximum(total, 0.0) / np.maximum(days, gamma_gamma.MIN_RATE_DAYS) * self.horizon_days
        return rate

    def population_average(self) -> float:
        """What customers spend over the horizon on average."""
        return self.mean

    def save(self, folder: Path) -> None:
        """Write the two numbers."""
        write_json(folder / MODEL_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read them back."""
        return cls(**read_json(folder / MODEL_FILE))


def seasonal_index(frame: pd.DataFrame, spent: Floats, horizon_days: int) -> float:
    """What came a year ago over what rhythm and worth then expected; 1 where nobody can say."""
    return seasonal_level.seasonal_index(
        frame,
        spent,
        horizon_days,
        lambda rows: gamma_gamma.expected_spend(*gamma_gamma.fit_bgnbd_and_spend(rows), rows, horizon_days),
    )
