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

from models import btyd
from models.base import Floats, TooLittle, read_json, require, write_json

FILE = "model.json"
#: The fewest customers of each fate, quiet and not, that a rate may be learned from.
FEWEST = 30
LIMIT = 1e-6
RARE, SILENT = "purchase_days", "recency_days"


#: What became of each row: 1 = no purchase within the horizon, 0 = one or more, NaN = not known yet; or a frame with
#: that as `quiet` beside what else is known.
Fate = pd.Series | pd.DataFrame | Floats


def fate(label: Fate) -> Floats:
    """What became of each row as 1, 0 or NaN."""
    if isinstance(label, pd.DataFrame):
        require(label, ["quiet"])
        return label["quiet"].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(label, dtype=np.float64)


def active(frame: pd.DataFrame, horizon_days: int) -> NDArray[np.bool_]:
    """Which rows had a purchase in the last two horizons: whose silence is news."""
    require(frame, [SILENT])
    return frame[SILENT].to_numpy(dtype=np.float64, na_value=np.nan) <= 2 * horizon_days


def known_quiet(frame: pd.DataFrame, label: Fate, horizon_days: int) -> tuple[pd.DataFrame, Floats]:
    """The active rows whose outcome is known, with it: 1 = no purchase within the horizon, 0 = at least one.

    Raises TooLittle with fewer than 30 of either.
    """
    quiet = fate(label)
    rows = active(frame, horizon_days) & np.isfinite(quiet)
    fewest = int(min(quiet[rows].sum(), (1 - quiet[rows]).sum()))
    if fewest < FEWEST:
        raise TooLittle(
            f"{int(rows.sum())} active customers have a known outcome after {horizon_days} days, {fewest} of "
            f"the rarer kind; {FEWEST} of each are needed: load a longer history or choose another churn_days"
        )
    return frame[rows], quiet[rows]


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
    def fit(cls, frame: pd.DataFrame, label: Fate, *, seed: int = 0, horizon_days: int = 28) -> Self:
        """Isotonic regression of the outcome on recency, over active customers."""
        rows, quiet = known_quiet(frame, label, horizon_days)
        days, where, counts = np.unique(
            rows[SILENT].to_numpy(dtype=np.float64), return_inverse=True, return_counts=True
        )
        shares = np.bincount(where, weights=quiet) / counts
        return cls(days, isotonic_regression(shares, weights=counts).x, float(quiet.mean()), horizon_days)

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon), a row each; the base rate for somebody who never bought."""
        require(frame, [SILENT])
        silence = frame[SILENT].to_numpy(dtype=np.float64, na_value=np.nan)
        chance = np.interp(silence, self.days, self.chance)
        return np.clip(np.where(np.isnan(silence), self.base, chance), LIMIT, 1 - LIMIT)

    def explain(self, frame: pd.DataFrame) -> list[list[str]]:
        """The features behind each answer: there is only one."""
        return [[SILENT] for _ in range(len(frame))]

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
    def fit(cls, frame: pd.DataFrame, label: Fate, *, seed: int = 0, horizon_days: int = 28) -> Self:
        """Learn the weights over active customers whose outcome is known."""
        rows, quiet = known_quiet(frame, label, horizon_days)
        terms = _rfm(rows)
        centre, width = terms.mean(axis=0), np.maximum(terms.std(axis=0), 1e-9)
        return cls(centre, width, logistic((terms - centre) / width, quiet), float(quiet.mean()), horizon_days)

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon), a row each."""
        chance: Floats = expit(self.weights[0] + self._parts(frame).sum(axis=1))
        return np.clip(chance, LIMIT, 1 - LIMIT)

    def explain(self, frame: pd.DataFrame) -> list[list[str]]:
        """The features that push each answer to its side of the usual, strongest first."""
        return towards(self._parts(frame), list(self.COLUMNS))

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
    def fit(cls, frame: pd.DataFrame, label: Fate, *, seed: int = 0, horizon_days: int = 28) -> Self:
        """Fit the rhythm of the latest moment's customers; outcomes, if there are any, give the base rate."""
        now = btyd.latest(frame)
        rhythm = btyd.BgNbd.fit_frame(now)
        quiet = fate(label)
        known = quiet[np.isfinite(quiet)]
        expected = rhythm.p_no_purchase(*btyd.history(now), horizon_days)
        return cls(rhythm, horizon_days, float(np.mean(known if len(known) else expected)))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon), a row each."""
        chance = self.rhythm.p_no_purchase(*btyd.history(frame), self.horizon_days)
        return np.clip(chance, LIMIT, 1 - LIMIT)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rare visits and the present silence, in log odds against the usual; + is towards no purchase."""
        rare, silent = self.rhythm.log_odds_quiet(btyd.history(frame), self.horizon_days)
        return pd.DataFrame({RARE: rare - btyd.log_odds(self.base), SILENT: silent}, index=frame.index)

    def explain(self, frame: pd.DataFrame) -> list[list[str]]:
        """Whether each answer is about rare visits or about the present silence, the stronger first."""
        return towards(self.contributions(frame).to_numpy(), [RARE, SILENT])

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
        if (durations(label, days)[0] > 0).any():
            return cls(rhythm, days, kaplan_meier(label, days))
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
        enough_outcomes(label, days, fewest=4 * FEWEST)
        recency, rate = _cell_terms(frame)
        recency_edges = np.quantile(recency, np.linspace(0, 1, 6)[1:-1])
        rate_edges = np.quantile(rate, np.linspace(0, 1, 10)[1:-1])
        pooled = kaplan_meier(label, days)
        cell = _cells(recency, rate, recency_edges, rate_edges)
        curves = [kaplan_meier(label[cell == number], days, towards=pooled) for number in range(45)]
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


def towards(parts: Floats, names: list[str]) -> list[list[str]]:
    """The names of the parts that pull each row to the side on which their sum lies, strongest first.

    parts: (rows, names) of signed contributions. A reason always speaks for its answer, never against it.
    """
    pull = parts * np.where(parts.sum(axis=1, keepdims=True) >= 0, 1.0, -1.0)
    order = np.argsort(-pull, axis=1, kind="stable")
    counts = np.maximum((pull > 0).sum(axis=1), 1)
    return [[names[i] for i in row[:count]] for row, count in zip(order, counts, strict=True)]


def durations(label: pd.DataFrame, days: int) -> tuple[Floats, NDArray[np.bool_]]:
    """How many of these days each row was watched (0 = not at all), and whether a purchase ended it."""
    require(label, ["duration_days", "observed"])
    watched = label["duration_days"].to_numpy(dtype=np.float64, na_value=np.nan)
    bought = label["observed"].to_numpy(dtype=np.float64, na_value=np.nan) == 1
    seen = np.nan_to_num(watched, nan=0.0)
    return np.clip(seen, 0, days), bought & (seen >= 1) & (seen <= days)


def enough_outcomes(label: pd.DataFrame, days: int, *, fewest: int) -> None:
    """Raise TooLittle unless enough next purchases were seen to learn their timing from."""
    seen = int(durations(label, days)[1].sum())
    if seen < fewest:
        raise TooLittle(
            f"{seen} next purchases were seen within {days} days and {fewest} are needed to learn when customers "
            "come back; load a longer history"
        )


def kaplan_meier(label: pd.DataFrame, days: int, *, towards: Floats | None = None, weight: float = 10.0) -> Floats:
    """P(no purchase in the first d days) for d = 1..days, from rows not all of which were watched to the end.

    label: duration_days (1 = on the first day) and observed (0 = still waiting when watching ended).
    `towards` is a curve that counts like `weight` more customers.
    """
    watched, bought = durations(label, days)
    events = np.bincount(watched[bought].astype(int), minlength=days + 1)[1:].astype(float)
    at_risk = np.bincount(watched.astype(int), minlength=days + 1)[::-1].cumsum()[::-1][1:].astype(float)
    if towards is not None:
        before = np.concatenate([[1.0], towards[:-1]])
        events = events + weight * (1 - np.divide(towards, before, out=np.ones(days), where=before > 0))
        at_risk = at_risk + weight
    hazard = np.divide(events, at_risk, out=np.zeros(days), where=at_risk > 0)
    curve: Floats = np.cumprod(1 - hazard)
    return curve


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
