"""Churn: who will not buy within the horizon, starting from how long a silence is usual for each customer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from models import baselines, btyd, trees
from models.base import Floats, feature_columns, matrix, read_json, write_json

#: Chosen on Complete Journey at cut-offs before those that are reported (days 196 to 280 of 2017).
GROWTH: dict[str, Any] = {
    "num_leaves": 15,
    "learning_rate": 0.03,
    "min_data_in_leaf": 100,
    "lambda_l2": 10.0,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
}
MOST_TREES = 1500
PATIENCE = 60
#: Trees to grow where no later outcome is left to say when to stop.
CAUTIOUS_TREES = 40
#: What the rhythm adds to the features, and which of the shop's own features each of them speaks of.
RHYTHM = {"rhythm_quiet": baselines.SILENT, "rhythm_alive": baselines.SILENT, "rhythm_rate": baselines.RARE}


@dataclass(frozen=True)
class Calibration:
    """Platt's line on log odds: what the model says against what came true at a later moment."""

    offset: float = 0.0
    slope: float = 1.0

    def __call__(self, odds: Floats) -> Floats:
        """Log odds put right."""
        return self.offset + self.slope * odds


@dataclass(frozen=True)
class Churn:
    """Trees grown on top of BG/NBD: they learn where its P(no purchase within the horizon) is wrong.

    Where they have learned nothing the answer is BG/NBD's own, which is what keeps small shops and customers
    unlike any seen before from harm. Learned from active customers (a purchase within two horizons); anybody
    can be scored.
    """

    columns: list[str]
    rhythm: btyd.BgNbd
    grown: trees.Trees
    horizon_days: int
    base: float
    calibration: Calibration = field(default_factory=Calibration)

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: pd.Series[Any] | Floats,
        *,
        seed: int = 0,
        horizon_days: int = 28,
        **growth: Any,
    ) -> Self:
        """Learn from every row whose outcome is known.

        label: 1 = no purchase in [as_of, as_of + horizon), 0 = at least one, NaN = not known yet. Every
        moment in the frame gets its own rhythm, fitted to its own rows: no row sees a later one's. The latest
        moment with outcomes says how many trees to grow and whether calibration helps; the trees that it
        judges have seen only outcomes that were complete by then. `growth` overrides LightGBM's settings.
        """
        baselines.known_quiet(frame, label, horizon_days)
        lesson = _lesson(frame, np.asarray(label, dtype=np.float64), horizon_days)
        how = trees.settings(GROWTH | growth, objective="binary", seed=seed)
        count, calibration = _judged(lesson, how, horizon_days)
        grown = trees.grow(lesson.rows, how, count)
        rhythm = btyd.BgNbd.fit_frame(btyd.latest(frame))
        base = float(lesson.rows.outcome.mean())
        return cls(lesson.columns, rhythm, grown, horizon_days, base, calibration)

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(no purchase within the horizon of each row's as_of), a row each."""
        rare, silent = self.rhythm.log_odds_quiet(btyd.history(frame), self.horizon_days)
        chance: Floats = expit(self.calibration(rare + silent + self.grown.added(self._design(frame))))
        return np.clip(chance, btyd.CERTAIN, 1 - btyd.CERTAIN)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """How much each feature moves each row from the usual, in log odds; + is towards no purchase.

        The trees' part is TreeSHAP's (Lundberg 2020). The rhythm's part counts as purchase_days (rare visits)
        and recency_days (the present silence).
        """
        rare, silent = self.rhythm.log_odds_quiet(btyd.history(frame), self.horizon_days)
        grown = self.grown.contributions(self._design(frame))[:, :-1]
        names = [*self.columns, *RHYTHM.values(), baselines.RARE, baselines.SILENT]
        parts = np.column_stack([grown, rare - btyd.log_odds(self.base), silent]) * self.calibration.slope
        spoken = list(dict.fromkeys(names))
        told = np.array([[name == feature for feature in spoken] for name in names], dtype=np.float64)
        return pd.DataFrame(parts @ told, columns=spoken, index=frame.index)

    def explain(self, frame: pd.DataFrame) -> list[list[str]]:
        """The features that push each answer to its side of the usual, strongest first."""
        parts = self.contributions(frame)
        return baselines.towards(parts.to_numpy(), list(parts.columns))

    def typical(self) -> float:
        """The share of active customers who did not come back within the horizon."""
        return self.base

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON."""
        self.grown.save(folder)
        content = {
            "columns": self.columns,
            "rhythm": asdict(self.rhythm),
            "horizon_days": self.horizon_days,
            "base": self.base,
            "calibration": asdict(self.calibration),
        }
        write_json(folder / baselines.FILE, content)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the rest back."""
        saved = read_json(folder / baselines.FILE)
        return cls(
            saved["columns"],
            btyd.BgNbd(**saved["rhythm"]),
            trees.Trees.load(folder),
            saved["horizon_days"],
            saved["base"],
            Calibration(**saved["calibration"]),
        )

    def _design(self, frame: pd.DataFrame) -> Floats:
        return np.hstack(
            [matrix(frame, self.columns), _rhythm_terms(self.rhythm, btyd.history(frame), self.horizon_days)]
        )


@dataclass(frozen=True)
class _Lesson:
    """Rows to learn from: features, the rhythm's log odds to start from, outcomes; and their moments."""

    columns: list[str]
    rows: trees.Rows
    moment: NDArray[np.datetime64]

    def where(self, which: NDArray[np.bool_]) -> _Lesson:
        return _Lesson(self.columns, self.rows.where(which), self.moment[which])


def _lesson(frame: pd.DataFrame, quiet: Floats, horizon_days: int) -> _Lesson:
    columns = feature_columns(frame)
    moment = pd.to_datetime(frame["as_of"], utc=True).to_numpy(dtype="datetime64[us]")
    past = btyd.history(frame)
    terms, start = np.zeros((len(frame), len(RHYTHM))), np.zeros(len(frame))
    for when in np.unique(moment):
        rows = moment == when
        then = btyd.History(*(part[rows] for part in past))
        rhythm = btyd.BgNbd.fit(*then)
        terms[rows] = _rhythm_terms(rhythm, then, horizon_days)
        start[rows] = sum(rhythm.log_odds_quiet(then, horizon_days))
    names = (*(f"f{i}" for i in range(len(columns))), *RHYTHM)
    rows = trees.Rows(np.hstack([matrix(frame, columns), terms]), quiet, start, names=names)
    return _Lesson(columns, rows, moment).where(baselines.active(frame, horizon_days) & np.isfinite(quiet))


def _rhythm_terms(rhythm: btyd.BgNbd, past: btyd.History, horizon_days: int) -> Floats:
    quiet = sum(rhythm.log_odds_quiet(past, horizon_days))
    return np.column_stack([quiet, rhythm.p_alive(*past), rhythm.rate(past.x, past.T)])


def _judged(lesson: _Lesson, how: dict[str, Any], horizon_days: int) -> tuple[int, Calibration]:
    """How many trees to grow and which line to draw, judged at the latest moment by trees from before it.

    Outcomes of an earlier moment that overlap the latest one's would leak into it: with them Complete Journey
    grew 500-900 trees instead of 40-110 and log loss rose from .286 to .291.
    """
    before, judge = _before_and_latest(lesson, horizon_days)
    if min(_rarer(before), _rarer(judge)) < baselines.FEWEST:
        return CAUTIOUS_TREES, Calibration()
    grown = trees.grow_until(before.rows, judge.rows, how, most=MOST_TREES, patience=PATIENCE)
    odds = judge.rows.beginning() + grown.added(judge.rows.design)
    return grown.count, _calibrated(odds, judge.rows.outcome)


def _before_and_latest(lesson: _Lesson, horizon_days: int) -> tuple[_Lesson, _Lesson]:
    """The rows whose outcome was complete at the latest moment, and those of the latest moment."""
    latest = lesson.moment.max()
    complete = lesson.moment + np.timedelta64(horizon_days, "D") <= latest
    return lesson.where(complete), lesson.where(lesson.moment == latest)


def _rarer(lesson: _Lesson) -> float:
    quiet = lesson.rows.outcome
    return float(min(quiet.sum(), (1 - quiet).sum()))


def _calibrated(odds: Floats, quiet: Floats) -> Calibration:
    """Platt's line if it helps customers it was not drawn from by two standard errors; else no change."""
    fold = np.arange(len(odds)) % 5
    gain = np.zeros(len(odds))
    for held in range(5):
        line = _platt(odds[fold != held], quiet[fold != held])
        rows = fold == held
        gain[rows] = _log_loss(odds[rows], quiet[rows]) - _log_loss(line(odds[rows]), quiet[rows])
    clear = gain.mean() > 2 * gain.std() / np.sqrt(len(gain))
    return _platt(odds, quiet) if clear else Calibration()


def _platt(odds: Floats, quiet: Floats) -> Calibration:
    offset, slope = baselines.logistic(odds[:, None], quiet, ridge=0.0)
    return Calibration(float(offset), float(slope))


def _log_loss(odds: Floats, quiet: Floats) -> Floats:
    loss: Floats = np.logaddexp(0, odds) - quiet * odds
    return loss
