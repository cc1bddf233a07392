"""Baselines of replenishment: the customer's own rate, and BG/NBD of customer and category."""

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
    """Each need comes up at its own steady rate; a new one at everybody's. Needs no outcomes."""

    rate: float
    mean: list[float]

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0) -> Self:
        """One number to learn: how often the needs of the latest moment come up, all together."""
        latest_frame = category_bg_nbd.latest_pairs(frame)
        summary = category_bg_nbd.purchase_summary(latest_frame)
        rate = float((summary.x.sum() + 1) / (summary.T.sum() + 30))
        return cls(rate, category_bg_nbd.mean_outcomes(label, cls(rate, []).score(latest_frame)))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(bought again within 7, 14 and 28 days): array (rows, 3), never falling."""
        summary = category_bg_nbd.purchase_summary(frame)
        pair_rates = (summary.x + 1) / (summary.T + 1 / self.rate)
        probabilities: Floats = -np.expm1(
            -pair_rates[:, None] * np.array(category_bg_nbd.HORIZONS_DAYS, dtype=np.float64)
        )
        return probabilities

    def population_average(self) -> Floats:
        """What holds for needs in general."""
        return np.array(self.mean)

    def save(self, folder: Path) -> None:
        """Write the numbers."""
        write_json(folder / MODEL_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read them back."""
        return cls(**read_json(folder / MODEL_FILE))


@dataclass(frozen=True)
class BgNbdRestock:
    """Buy till you die, for each customer and category: a steady rate until the day they are done with it."""

    needs: bg_nbd.BgNbd
    mean: list[float]

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0) -> Self:
        """Fit the needs of the latest moment; outcomes, if there are any, give what is typical."""
        latest_frame = category_bg_nbd.latest_pairs(frame)
        bgnbd = category_bg_nbd.fit_bgnbd(latest_frame, seed=seed)
        return cls(
            bgnbd,
            category_bg_nbd.mean_outcomes(
                label, category_bg_nbd.purchase_probabilities(bgnbd, category_bg_nbd.purchase_summary(latest_frame))
            ),
        )

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(bought again within 7, 14 and 28 days): array (rows, 3), never falling."""
        return category_bg_nbd.purchase_probabilities(self.needs, category_bg_nbd.purchase_summary(frame))

    def population_average(self) -> Floats:
        """What holds for needs in general."""
        return np.array(self.mean)

    def save(self, folder: Path) -> None:
        """Write the parameters."""
        write_json(folder / MODEL_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read them back."""
        saved: dict[str, Any] = read_json(folder / MODEL_FILE)
        return cls(bg_nbd.BgNbd(**saved["needs"]), saved["mean"])
