"""Baselines: the plain rules of the trade that a clever model must beat, and that stand in where it fails."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import expit

from models import btyd, fates
from models.base import FILE, Floats, read_json, require, write_json


def logistic(terms: Floats, label: Floats, *, ridge: float = 1.0) -> Floats:
    """Logistic regression by Newton's method: the intercept, which the ridge spares, then the weights."""
    design = np.column_stack([np.ones(len(terms)), terms])
    penalty = ridge * np.diag([0.0] + [1.0] * terms.shape[1])
    weights = np.zeros(design.shape[1])
    for _ in range(25):
        chance = expit(design @ weights)
        slope = design.T @ (label - chance) - penalty @ weights
        curve = design.T @ (design * (chance * (1 - chance))[:, None]) + penalty
        step = np.linalg.solve(curve + 1e-9 * np.eye(len(weights)), slope)
        weights = weights + np.clip(step, -3, 3)
        if np.abs(step).max() < 1e-9:
            break
    return weights


@dataclass(frozen=True)
class RecencyChurn:
    """The longer the silence, the likelier it lasts: the share who stayed away, by days of silence."""

    days: Floats
    chance: Floats
    base: float
    horizon_days: int

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: fates.Fate, *, seed: int = 0, horizon_days: int = 28) -> Self:
        """Isotonic regression of the outcome on recency, over active customers."""
        rows, quiet = fates.known_quiet(frame, label, horizon_days)
        days, where, counts = np.unique(
            rows[btyd.SILENT].to_numpy(dtype=np.float64), return_inverse=True, return_counts=True
        )
        shares = np.bincount(where, weights=quiet) / counts
        return cls(days, isotonic_regression(shares, weights=counts).x, float(quiet.mean()), horizon_days)

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon), a row each; the base rate for somebody who never bought."""
        require(frame, [btyd.SILENT])
        silence = frame[btyd.SILENT].to_numpy(dtype=np.float64, na_value=np.nan)
        chance = np.interp(silence, self.days, self.chance)
        return np.clip(np.where(np.isnan(silence), self.base, chance), btyd.CERTAIN, 1 - btyd.CERTAIN)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The present silence, in log odds against the usual; + is towards no purchase."""
        odds = btyd.log_odds(self.score(frame)) - btyd.log_odds(self.base)
        return pd.DataFrame({btyd.SILENT: odds}, index=frame.index)

    def typical(self) -> float:
        """The share of all outcomes that were quiet."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the curve."""
        write_json(folder / FILE, {name: np.asarray(part).tolist() for name, part in asdict(self).items()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the curve back."""
        saved = read_json(folder / FILE)
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
    def fit(cls, frame: pd.DataFrame, label: fates.Fate, *, seed: int = 0, horizon_days: int = 28) -> Self:
        """Learn the weights over active customers whose outcome is known."""
        rows, quiet = fates.known_quiet(frame, label, horizon_days)
        terms = _rfm(rows)
        centre, width = terms.mean(axis=0), np.maximum(terms.std(axis=0), 1e-9)
        return cls(centre, width, logistic((terms - centre) / width, quiet), float(quiet.mean()), horizon_days)

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon), a row each."""
        chance: Floats = expit(self.weights[0] + self._parts(frame).sum(axis=1))
        return np.clip(chance, btyd.CERTAIN, 1 - btyd.CERTAIN)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """How much each term moves each row from its mean, in log odds; + is towards no purchase."""
        return pd.DataFrame(self._parts(frame), columns=list(self.COLUMNS), index=frame.index)

    def typical(self) -> float:
        """The share of all outcomes that were quiet."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the weights."""
        write_json(folder / FILE, {name: np.asarray(part).tolist() for name, part in asdict(self).items()})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the weights back."""
        saved = read_json(folder / FILE)
        centre, width, weights = (np.array(saved[name]) for name in ("centre", "width", "weights"))
        return cls(centre, width, weights, saved["base"], saved["horizon_days"])

    def _parts(self, frame: pd.DataFrame) -> Floats:
        return (_rfm(frame) - self.centre) / self.width * self.weights[1:]


@dataclass(frozen=True)
class BgNbdChurn:
    """What buy-till-you-die says of churn: P(no purchase within the horizon | past). Needs no outcomes."""

    rhythm: btyd.BgNbd
    horizon_days: int
    base: float

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: fates.Fate, *, seed: int = 0, horizon_days: int = 28) -> Self:
        """Fit the rhythm of the latest moment's customers; outcomes, if there are any, give the base rate."""
        now = btyd.latest(frame)
        rhythm = btyd.BgNbd.fit_frame(now)
        quiet = fates.fate(label)
        known = quiet[np.isfinite(quiet)]
        expected = rhythm.p_no_purchase(*btyd.history(now), horizon_days)
        return cls(rhythm, horizon_days, float(np.mean(known if len(known) else expected)))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon), a row each."""
        chance = self.rhythm.p_no_purchase(*btyd.history(frame), self.horizon_days)
        return np.clip(chance, btyd.CERTAIN, 1 - btyd.CERTAIN)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rare visits and the present silence, in log odds against the usual; + is towards no purchase."""
        rare, silent = self.rhythm.log_odds_quiet(btyd.history(frame), self.horizon_days)
        return pd.DataFrame({btyd.RARE: rare - btyd.log_odds(self.base), btyd.SILENT: silent}, index=frame.index)

    def typical(self) -> float:
        """The share of all outcomes that were quiet."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the four parameters."""
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the four parameters back."""
        saved = read_json(folder / FILE)
        return cls(btyd.BgNbd(**saved["rhythm"]), saved["horizon_days"], saved["base"])


@dataclass(frozen=True)
class BgNbdTiming:
    """What buy-till-you-die says of the next purchase: all its distribution by day. Needs no outcomes."""

    rhythm: btyd.BgNbd
    days: int
    pooled: Floats

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0, days: int = 90) -> Self:
        """Fit the rhythm of the latest moment's customers; outcomes, if any, give the typical curve."""
        now = btyd.latest(frame)
        rhythm = btyd.BgNbd.fit_frame(now)
        if (fates.durations(label, days)[0] > 0).any():
            return cls(rhythm, days, fates.kaplan_meier(label, days))
        return cls(rhythm, days, rhythm.survival(*btyd.history(now), days).mean(axis=0))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(the next purchase is more than d days away) for d = 1..days: array (rows, days)."""
        return self.rhythm.survival(*btyd.history(frame), self.days)

    def typical(self) -> Floats:
        """The curve of all customers together: array (days,)."""
        return self.pooled

    def save(self, folder: Path) -> None:
        """Write the four parameters and the typical curve."""
        content = {"rhythm": asdict(self.rhythm), "days": self.days, "pooled": self.pooled.tolist()}
        write_json(folder / FILE, content)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what was written."""
        saved = read_json(folder / FILE)
        return cls(btyd.BgNbd(**saved["rhythm"]), saved["days"], np.array(saved["pooled"]))


@dataclass(frozen=True)
class KaplanMeierTiming:
    """What customers of the same recency and frequency did: a Kaplan-Meier curve for each of 5 x 9 cells."""

    recency_edges: Floats
    rate_edges: Floats
    curves: Floats
    pooled: Floats

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0, days: int = 90) -> Self:
        """Cut recency into fifths and rates into ninths; a thin cell leans on the curve of everybody."""
        fates.enough_outcomes(label, days, fewest=4 * fates.FEWEST)
        recency, rate = _cell_terms(frame)
        recency_edges = np.quantile(recency, np.linspace(0, 1, 6)[1:-1])
        rate_edges = np.quantile(rate, np.linspace(0, 1, 10)[1:-1])
        pooled = fates.kaplan_meier(label, days)
        cell = _cells(recency, rate, recency_edges, rate_edges)
        curves = [fates.kaplan_meier(label[cell == number], days, towards=pooled) for number in range(45)]
        return cls(recency_edges, rate_edges, np.array(curves), pooled)

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(the next purchase is more than d days away) for d = 1..days: array (rows, days)."""
        return self.curves[_cells(*_cell_terms(frame), self.recency_edges, self.rate_edges)]

    def typical(self) -> Floats:
        """The curve of all customers together: array (days,)."""
        return self.pooled

    def save(self, folder: Path) -> None:
        """Write the cells' edges and curves."""
        np.savez(folder / "model.npz", **asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the cells' edges and curves back."""
        with np.load(folder / "model.npz", allow_pickle=False) as saved:
            return cls(*(saved[name] for name in ("recency_edges", "rate_edges", "curves", "pooled")))


def _rfm(frame: pd.DataFrame) -> Floats:
    require(frame, list(RfmLogistic.COLUMNS))
    values = frame[list(RfmLogistic.COLUMNS)].to_numpy(dtype=np.float64, na_value=np.nan)
    # A single purchase leaves no gap to average: the time since then is the least it can be.
    values[:, 3] = np.where(np.isnan(values[:, 3]), values[:, 2], values[:, 3])
    terms: Floats = np.log1p(np.maximum(np.nan_to_num(values, nan=0.0, posinf=0.0), 0.0))
    return terms


def _cell_terms(frame: pd.DataFrame) -> tuple[Floats, Floats]:
    past = btyd.history(frame)
    return past.T - past.t_x, (past.x + 1) / (past.T + 1)


def _cells(recency: Floats, rate: Floats, recency_edges: Floats, rate_edges: Floats) -> NDArray[np.intp]:
    cells: NDArray[np.intp] = np.searchsorted(recency_edges, recency) * 9 + np.searchsorted(rate_edges, rate)
    return cells
