"""Baselines: the plain rules of the trade that a clever model must beat, and that stand in where it fails."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression
from scipy.special import expit

from models import base
from models.base import MODEL_FILE, Floats, read_json, require_columns, write_json
from models.btyd import bg_nbd
from models.estimators import logistic_regression
from models.survival import outcomes as survival_outcomes


@dataclass(frozen=True)
class RecencyChurn:
    """The longer the silence, the likelier it lasts: the share who stayed away, by days of silence."""

    days: Floats
    chance: Floats
    base: float
    horizon_days: int

    @classmethod
    def fit(
        cls, frame: pd.DataFrame, label: survival_outcomes.ChurnLabel, *, seed: int = 0, horizon_days: int = 28
    ) -> Self:
        """Isotonic regression of the outcome on recency, over active customers."""
        rows, churned = survival_outcomes.select_labelled(frame, label, horizon_days)
        days, positions, counts = np.unique(
            rows[base.RECENCY_COLUMN].to_numpy(dtype=np.float64), return_inverse=True, return_counts=True
        )
        shares = np.bincount(positions, weights=churned) / counts
        return cls(days, isotonic_regression(shares, weights=counts).x, float(churned.mean()), horizon_days)

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon), a row each; the base rate for somebody who never bought."""
        require_columns(frame, [base.RECENCY_COLUMN])
        recency_days = frame[base.RECENCY_COLUMN].to_numpy(dtype=np.float64, na_value=np.nan)
        probability = np.interp(recency_days, self.days, self.chance)
        return np.clip(
            np.where(np.isnan(recency_days), self.base, probability), bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY
        )

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The present silence, in log odds against the usual; + is towards no purchase."""
        odds = bg_nbd.log_odds(self.score(frame)) - bg_nbd.log_odds(self.base)
        return pd.DataFrame({base.RECENCY_COLUMN: odds}, index=frame.index)

    def population_average(self) -> float:
        """The share of all outcomes that were quiet."""
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
    """Recency, frequency and money in six terms, weighed by a logistic regression."""

    centre: Floats
    width: Floats
    weights: Floats
    base: float
    horizon_days: int

    #: The features behind the terms, in their order.
    COLUMNS = (
        "recency_days",
        "purchase_days",
        "tenure_days",
        "gap_mean_days",
        "purchase_days_28d",
        "basket_value_mean",
    )

    @classmethod
    def fit(
        cls, frame: pd.DataFrame, label: survival_outcomes.ChurnLabel, *, seed: int = 0, horizon_days: int = 28
    ) -> Self:
        """Learn the weights over active customers whose outcome is known."""
        rows, churned = survival_outcomes.select_labelled(frame, label, horizon_days)
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
        """P(no purchase within the horizon), a row each."""
        probability: Floats = expit(self.weights[0] + self._parts(frame).sum(axis=1))
        return np.clip(probability, bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """How much each term moves each row from its mean, in log odds; + is towards no purchase."""
        return pd.DataFrame(self._parts(frame), columns=list(self.COLUMNS), index=frame.index)

    def population_average(self) -> float:
        """The share of all outcomes that were quiet."""
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
    """What buy-till-you-die says of churn: P(no purchase within the horizon | past). Needs no outcomes."""

    rhythm: bg_nbd.BgNbd
    horizon_days: int
    base: float

    @classmethod
    def fit(
        cls, frame: pd.DataFrame, label: survival_outcomes.ChurnLabel, *, seed: int = 0, horizon_days: int = 28
    ) -> Self:
        """Fit the rhythm of the latest moment's customers; outcomes, if there are any, give the base rate."""
        latest = base.latest_rows(frame)
        bgnbd = bg_nbd.BgNbd.fit_frame(latest)
        churned = survival_outcomes.read_churned(label)
        labels = churned[np.isfinite(churned)]
        expected = bgnbd.p_no_purchase(*bg_nbd.purchase_summary(latest), horizon_days)
        return cls(bgnbd, horizon_days, float(np.mean(labels if len(labels) else expected)))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon), a row each."""
        probability = self.rhythm.p_no_purchase(*bg_nbd.purchase_summary(frame), self.horizon_days)
        return np.clip(probability, bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rare visits and the present silence, in log odds against the usual; + is towards no purchase."""
        frequency_effect, recency_effect = self.rhythm.no_purchase_log_odds_parts(
            bg_nbd.purchase_summary(frame), self.horizon_days
        )
        return pd.DataFrame(
            {base.FREQUENCY_COLUMN: frequency_effect - bg_nbd.log_odds(self.base), base.RECENCY_COLUMN: recency_effect},
            index=frame.index,
        )

    def population_average(self) -> float:
        """The share of all outcomes that were quiet."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the four parameters."""
        write_json(folder / MODEL_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the four parameters back."""
        saved = read_json(folder / MODEL_FILE)
        return cls(bg_nbd.BgNbd(**saved["rhythm"]), saved["horizon_days"], saved["base"])


def _rfm_terms(frame: pd.DataFrame) -> Floats:
    require_columns(frame, list(RfmLogistic.COLUMNS))
    values = frame[list(RfmLogistic.COLUMNS)].to_numpy(dtype=np.float64, na_value=np.nan)
    # A single purchase leaves no gap to average: the time since then is the least it can be.
    values[:, 3] = np.where(np.isnan(values[:, 3]), values[:, 2], values[:, 3])
    terms: Floats = np.log1p(np.maximum(np.nan_to_num(values, nan=0.0, posinf=0.0), 0.0))
    return terms
