"""Replenishment baselines: a Poisson rate, and BG/NBD, per customer and category."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from models.base import MODEL_FILE, Floats, read_json, write_json
from models.btyd import bg_nbd
from models.restock import category_bg_nbd


@dataclass(frozen=True)
class PoissonRestock:
    """A Poisson rate for each customer and category, shrunk to the overall rate. Needs no outcomes."""

    rate: float
    mean: list[float]

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0) -> Self:
        """Estimate the overall purchase rate per customer and category, from the rows of the latest cutoff.

        label: columns within_7, within_14 and within_28: 1 = bought again, 0 = not, NaN = not known yet.
        """
        latest_frame = category_bg_nbd.latest_pairs(frame)
        summary = category_bg_nbd.purchase_summary(latest_frame)
        rate = float((summary.x.sum() + 1) / (summary.T.sum() + 30))
        return cls(rate, category_bg_nbd.mean_outcomes(label, cls(rate, []).score(latest_frame)))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(bought again within 7, 14 and 28 days): array (n, 3), non-decreasing."""
        summary = category_bg_nbd.purchase_summary(frame)
        pair_rates = (summary.x + 1) / (summary.T + 1 / self.rate)
        probabilities: Floats = -np.expm1(
            -pair_rates[:, None] * np.array(category_bg_nbd.HORIZONS_DAYS, dtype=np.float64)
        )
        return probabilities

    def population_average(self) -> Floats:
        """The mean outcome of all customers and categories for each horizon: array (n_horizons,)."""
        return np.array(self.mean)

    def save(self, folder: Path) -> None:
        """Write the numbers."""
        write_json(folder / MODEL_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the numbers back."""
        return cls(**read_json(folder / MODEL_FILE))


@dataclass(frozen=True)
class BgNbdRestock:
    """BG/NBD for each customer and category: a constant purchase rate until the customer drops the category."""

    bgnbd: bg_nbd.BgNbd
    mean: list[float]

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0) -> Self:
        """Fit BG/NBD to the rows of the latest cutoff; outcomes, if there are any, give the means.

        label: columns within_7, within_14 and within_28: 1 = bought again, 0 = not, NaN = not known yet.
        """
        latest_frame = category_bg_nbd.latest_pairs(frame)
        bgnbd = category_bg_nbd.fit_bgnbd(latest_frame, seed=seed)
        return cls(
            bgnbd,
            category_bg_nbd.mean_outcomes(
                label, category_bg_nbd.purchase_probabilities(bgnbd, category_bg_nbd.purchase_summary(latest_frame))
            ),
        )

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(bought again within 7, 14 and 28 days): array (n, 3), non-decreasing."""
        return category_bg_nbd.purchase_probabilities(self.bgnbd, category_bg_nbd.purchase_summary(frame))

    def population_average(self) -> Floats:
        """The mean outcome of all customers and categories for each horizon: array (n_horizons,)."""
        return np.array(self.mean)

    def save(self, folder: Path) -> None:
        """Write the parameters, under the keys of version 0.4.0."""
        write_json(folder / MODEL_FILE, {"needs": asdict(self.bgnbd), "mean": self.mean})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the parameters back."""
        saved: dict[str, Any] = read_json(folder / MODEL_FILE)
        return cls(bg_nbd.BgNbd(**saved["needs"]), saved["mean"])
