"""Churn baselines, which the churn model must beat and which replace it where it fails."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from scipy.special import expit

from models import base
from models.base import MODEL_FILE, Floats, read_json, require_columns, write_json
from models.btyd import bg_nbd
from models.estimators import logistic_regression
from models.survival import outcomes


@dataclass(frozen=True)
class RecencyChurn:
    """P(no purchase within the horizon) as a non-decreasing function of recency."""

    days: Floats
    chance: Floats
    base: float
    horizon_days: int

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: outcomes.ChurnLabel, *, seed: int = 0, horizon_days: int = 28) -> Self:
        """Isotonic regression of the outcome on recency, over active customers.

        label: (n,), or a frame with a column churned: 1 = no purchase within the horizon, 0 = at least one, NaN = not
            known yet.
        """
        from scipy.optimize import isotonic_regression  # imported here: a server never fits

        rows, churned = outcomes.select_labelled(frame, label, horizon_days)
        days, positions, counts = np.unique(
            rows[base.RECENCY_COLUMN].to_numpy(dtype=np.float64), return_inverse=True, return_counts=True
        )
        shares = np.bincount(positions, weights=churned) / counts
        return cls(days, isotonic_regression(shares, weights=counts).x, float(churned.mean()), horizon_days)

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon): array (n,); the base rate for a customer without purchases."""
        require_columns(frame, [base.RECENCY_COLUMN])
        recency_days = frame[base.RECENCY_COLUMN].to_numpy(dtype=np.float64, na_value=np.nan)
        probability = np.interp(recency_days, self.days, self.chance)
        return np.clip(
            np.where(np.isnan(recency_days), self.base, probability), bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY
        )

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Log odds against the base rate, in column recency_days; + is towards no purchase."""
        odds = bg_nbd.log_odds(self.score(frame)) - bg_nbd.log_odds(self.base)
        return pd.DataFrame({base.RECENCY_COLUMN: odds}, index=frame.index)

    def population_average(self) -> float:
        """The share of the training outcomes without a purchase."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the curve."""
        write_json(folder / MODEL_FILE, {name: np.asarray(part).tolist() for name, part in asdict(self).items()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the curve back."""
        saved = read_json(folder / MODEL_FILE)
        return cls(np.array(saved["days"]), np.array(saved["chance"]), saved["base"], saved["horizon_days"])


@dataclass(frozen=True)
class RfmLogistic:
    """Logistic regression on six recency, frequency and monetary terms."""

    centre: Floats
    width: Floats
    weights: Floats
    base: float
    horizon_days: int

    #: The features from which the terms are computed, in the order of the terms.
    COLUMNS = (
        "recency_days",
        "purchase_days",
        "tenure_days",
        "gap_mean_days",
        "purchase_days_28d",
        "basket_value_mean",
    )

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: outcomes.ChurnLabel, *, seed: int = 0, horizon_days: int = 28) -> Self:
        """Fit the weights on active customers whose outcome is known.

        label: (n,), or a frame with a column churned: 1 = no purchase within the horizon, 0 = at least one, NaN = not
            known yet.
        """
        rows, churned = outcomes.select_labelled(frame, label, horizon_days)
        terms = _rfm_terms(rows)
        centre, width = terms.mean(axis=0), np.maximum(terms.std(axis=0), 1e-9)
        return cls(
            centre,
            width,
            logistic_regression.fit_weights((terms - centre) / width, churned),
            float(churned.mean()),
            horizon_days,
        )

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon): array (n,)."""
        probability: Floats = expit(self.weights[0] + self._parts(frame).sum(axis=1))
        return np.clip(probability, bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The effect of each term against its mean, in log odds, one column per term; + is towards no purchase."""
        return pd.DataFrame(self._parts(frame), columns=list(self.COLUMNS), index=frame.index)

    def population_average(self) -> float:
        """The share of the training outcomes without a purchase."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the weights."""
        write_json(folder / MODEL_FILE, {name: np.asarray(part).tolist() for name, part in asdict(self).items()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the weights back."""
        saved = read_json(folder / MODEL_FILE)
        centre, width, weights = (np.array(saved[name]) for name in ("centre", "width", "weights"))
        return cls(centre, width, weights, saved["base"], saved["horizon_days"])

    def _parts(self, frame: pd.DataFrame) -> Floats:
        return (_rfm_terms(frame) - self.centre) / self.width * self.weights[1:]


@dataclass(frozen=True)
class BgNbdChurn:
    """BG/NBD's P(no purchase within the horizon | purchase history). Needs no outcomes."""

    bgnbd: bg_nbd.BgNbd
    horizon_days: int
    base: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: outcomes.ChurnLabel, *, seed: int = 0, horizon_days: int = 28) -> Self:
        """Fit BG/NBD to the customers of the latest cutoff; outcomes, if there are any, give the base rate.

        label: (n,), or a frame with a column churned: 1 = no purchase within the horizon, 0 = at least one, NaN = not
            known yet.
        """
        latest = base.latest_rows(frame)
        bgnbd = bg_nbd.BgNbd.fit_frame(latest)
        churned = outcomes.read_churned(label)
        labels = churned[np.isfinite(churned)]
        expected = bgnbd.p_no_purchase(*bg_nbd.purchase_summary(latest), horizon_days)
        return cls(bgnbd, horizon_days, float(np.mean(labels if len(labels) else expected)))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon): array (n,)."""
        probability = self.bgnbd.p_no_purchase(*bg_nbd.purchase_summary(frame), self.horizon_days)
        return np.clip(probability, bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Log odds against the base rate, in columns purchase_days and recency_days; + is towards no purchase."""
        frequency_effect, recency_effect = self.bgnbd.no_purchase_log_odds_parts(
            bg_nbd.purchase_summary(frame), self.horizon_days
        )
        return pd.DataFrame(
            {base.FREQUENCY_COLUMN: frequency_effect - bg_nbd.log_odds(self.base), base.RECENCY_COLUMN: recency_effect},
            index=frame.index,
        )

    def population_average(self) -> float:
        """The share of known outcomes without a purchase; without outcomes, the mean prediction."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the parameters."""
        write_json(
            folder / MODEL_FILE, {"rhythm": asdict(self.bgnbd), "horizon_days": self.horizon_days, "base": self.base}
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the parameters back."""
        saved = read_json(folder / MODEL_FILE)
        return cls(bg_nbd.BgNbd(**saved["rhythm"]), saved["horizon_days"], saved["base"])


def _rfm_terms(frame: pd.DataFrame) -> Floats:
    require_columns(frame, list(RfmLogistic.COLUMNS))
    values = frame[list(RfmLogistic.COLUMNS)].to_numpy(dtype=np.float64, na_value=np.nan)
    # A single purchase has no gap: the days since then are its lower bound.
    values[:, 3] = np.where(np.isnan(values[:, 3]), values[:, 2], values[:, 3])
    terms: Floats = np.log1p(np.maximum(np.nan_to_num(values, nan=0.0, posinf=0.0), 0.0))
    return terms
