"""Baselines of next-purchase timing: BG/NBD and Kaplan-Meier."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import base
from models.base import MODEL_FILE, Floats, read_json, write_json
from models.btyd import bg_nbd
from models.survival import kaplan_meier, outcomes


@dataclass(frozen=True)
class BgNbdTiming:
    """BG/NBD's distribution of the days to the next purchase. Needs no outcomes."""

    bgnbd: bg_nbd.BgNbd
    days: int
    pooled: Floats

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0, days: int = 90) -> Self:
        """Fit BG/NBD to the customers of the latest cutoff; outcomes, if any, give the pooled curve.

        label: columns duration_days (1 = a purchase on the day of as_of) and observed (0 = censored).
        """
        latest = base.latest_rows(frame)
        bgnbd = bg_nbd.BgNbd.fit_frame(latest)
        if (kaplan_meier.read_durations(label, days)[0] > 0).any():
            return cls(bgnbd, days, kaplan_meier.survival_curve(label, days))
        return cls(bgnbd, days, bgnbd.survival(*bg_nbd.purchase_summary(latest), days).mean(axis=0))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(the next purchase is more than d days away) for d = 1..days: array (n, days)."""
        return self.bgnbd.survival(*bg_nbd.purchase_summary(frame), self.days)

    def population_average(self) -> Floats:
        """The survival curve of all customers together: array (n_days,)."""
        return self.pooled

    def save(self, folder: Path) -> None:
        """Write the four parameters, under the key of version 0.4.0, and the pooled curve."""
        content = {"rhythm": asdict(self.bgnbd), "days": self.days, "pooled": self.pooled.tolist()}
        write_json(folder / MODEL_FILE, content)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the parameters and the pooled curve back."""
        saved = read_json(folder / MODEL_FILE)
        return cls(bg_nbd.BgNbd(**saved["rhythm"]), saved["days"], np.array(saved["pooled"]))


@dataclass(frozen=True)
class KaplanMeierTiming:
    """A Kaplan-Meier curve for each of 5 x 9 cells of recency and purchase rate."""

    recency_edges: Floats
    rate_edges: Floats
    curves: Floats
    pooled: Floats

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0, days: int = 90) -> Self:
        """Cut recency into 5 and the rate into 9 quantile groups; small cells are shrunk to the pooled curve.

        label: columns duration_days (1 = a purchase on the day of as_of) and observed (0 = censored).
        """
        kaplan_meier.require_purchases(label, days, min_purchases=4 * outcomes.MIN_OUTCOMES)
        recency, rate = _cell_terms(frame)
        recency_edges = np.quantile(recency, np.linspace(0, 1, 6)[1:-1])
        rate_edges = np.quantile(rate, np.linspace(0, 1, 10)[1:-1])
        pooled = kaplan_meier.survival_curve(label, days)
        cell = _cell_numbers(recency, rate, recency_edges, rate_edges)
        curves = [kaplan_meier.survival_curve(label[cell == number], days, prior_curve=pooled) for number in range(45)]
        return cls(recency_edges, rate_edges, np.array(curves), pooled)

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(the next purchase is more than d days away) for d = 1..days: array (n, days)."""
        return self.curves[_cell_numbers(*_cell_terms(frame), self.recency_edges, self.rate_edges)]

    def population_average(self) -> Floats:
        """The survival curve of all customers together: array (n_days,)."""
        return self.pooled

    def save(self, folder: Path) -> None:
        """Write the bounds and curves of the cells."""
        np.savez(folder / "model.npz", **asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the bounds and curves of the cells back."""
        with np.load(folder / "model.npz", allow_pickle=False) as saved:
            return cls(*(saved[name] for name in ("recency_edges", "rate_edges", "curves", "pooled")))


def _cell_terms(frame: pd.DataFrame) -> tuple[Floats, Floats]:
    summary = bg_nbd.purchase_summary(frame)
    return summary.T - summary.t_x, (summary.x + 1) / (summary.T + 1)


def _cell_numbers(recency: Floats, rate: Floats, recency_edges: Floats, rate_edges: Floats) -> NDArray[np.intp]:
    cells: NDArray[np.intp] = np.searchsorted(recency_edges, recency) * 9 + np.searchsorted(rate_edges, rate)
    return cells
