"""Value: what a customer will spend over the horizon, from their rhythm, their spending and their taste."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import btyd, spending, trees
from models.base import Floats, feature_columns, matrix, read_json, write_json

#: Chosen on Complete Journey at cut-offs before those that are reported (horizons of 30 to 60 days, July to September).
GROWTH: dict[str, Any] = {
    "tweedie_variance_power": 1.4,
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 150,
    "lambda_l2": 5.0,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
}
MOST_TREES = 500
PATIENCE = 40
#: Trees to grow where no later outcome is left to say when to stop.
CAUTIOUS_TREES = 100
#: One wholesaler's order must not teach what everybody else will spend.
WINSOR = 0.999
#: What the rhythm adds to the features.
RHYTHM = ("rhythm_value", "rhythm_purchases", "rhythm_alive", "rhythm_rate", "rhythm_worth")
LEAST = 1e-3
FREE, ANCHORED = "free.txt", "anchored.txt"


@dataclass(frozen=True)
class Value:
    """Trees with Tweedie's loss: many spend nothing, and the rest spend very differently (Jorgensen 1987).

    The rhythm (BG/NBD) and what a visit is worth (Gamma-Gamma) are features, fitted to each moment's own rows.
    Two groves are grown, one from nothing and one on top of what rhythm and worth expect, and the answer lies
    halfway, on a scale of logarithms: the first ranks better, the second is nearer in level, and together they
    had the ranking of the one and smaller errors than either.
    """

    columns: list[str]
    rhythm: btyd.BgNbd
    worth: spending.GammaGamma
    free: trees.Trees
    anchored: trees.Trees
    horizon_days: int
    mean: float

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: pd.Series[Any] | Floats,
        *,
        seed: int = 0,
        horizon_days: int = 90,
        **growth: Any,
    ) -> Self:
        """Learn from every row whose outcome is known.

        label: what was spent in [as_of, as_of + horizon), NaN = not known yet. The latest moment with outcomes
        says how many trees to grow, judged by trees that saw only outcomes complete by then. `growth` overrides
        LightGBM's settings.
        """
        spent = spending.known_spends(frame, label, horizon_days)[1]
        lesson = _lesson(frame, np.asarray(label, dtype=np.float64), horizon_days)
        how = trees.settings(GROWTH | growth, objective="tweedie", seed=seed)
        free, anchored = (
            trees.grow(part.rows, how, _trees_to_grow(part, how, horizon_days))
            for part in (lesson.unanchored(), lesson)
        )
        now = btyd.latest(frame)
        rhythm, worth = btyd.BgNbd.fit_frame(now), spending.GammaGamma.fit(*spending.spends(now))
        return cls(lesson.columns, rhythm, worth, free, anchored, horizon_days, float(spent.mean()))

    def score(self, frame: pd.DataFrame) -> Floats:
        """What each row's customer is expected to spend over the horizon, from as_of on."""
        terms = _terms(self.rhythm, self.worth, frame, self.horizon_days)
        design = np.hstack([matrix(frame, self.columns), terms])
        logs = (self.free.added(design) + self.anchored.added(design) + _start(terms)) / 2
        return np.exp(np.clip(logs, -20.0, 40.0))

    def typical(self) -> float:
        """What customers spend over the horizon on average."""
        return self.mean

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text and everything else as JSON."""
        self.free.save(folder, FREE)
        self.anchored.save(folder, ANCHORED)
        content = {
            "columns": self.columns,
            "rhythm": asdict(self.rhythm),
            "worth": asdict(self.worth),
            "horizon_days": self.horizon_days,
            "mean": self.mean,
        }
        write_json(folder / spending.FILE, content)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the trees and the rest back."""
        saved = read_json(folder / spending.FILE)
        rhythm, worth = btyd.BgNbd(**saved["rhythm"]), spending.GammaGamma(**saved["worth"])
        free, anchored = trees.Trees.load(folder, FREE), trees.Trees.load(folder, ANCHORED)
        return cls(saved["columns"], rhythm, worth, free, anchored, saved["horizon_days"], saved["mean"])


@dataclass(frozen=True)
class _Lesson:
    """Rows to learn from, and their moments."""

    columns: list[str]
    rows: trees.Rows
    moment: NDArray[np.datetime64]

    def where(self, which: NDArray[np.bool_]) -> _Lesson:
        return _Lesson(self.columns, self.rows.where(which), self.moment[which])

    def unanchored(self) -> _Lesson:
        """The same, for trees that start from nothing."""
        return replace(self, rows=replace(self.rows, start=None))


def _lesson(frame: pd.DataFrame, spent: Floats, horizon_days: int) -> _Lesson:
    columns = feature_columns(frame)
    moment = pd.to_datetime(frame["as_of"], utc=True).to_numpy(dtype="datetime64[us]")
    terms = np.zeros((len(frame), len(RHYTHM)))
    for when in np.unique(moment):
        rows = moment == when
        then = frame[rows]
        rhythm, worth = btyd.BgNbd.fit_frame(then), spending.GammaGamma.fit(*spending.spends(then))
        terms[rows] = _terms(rhythm, worth, then, horizon_days)
    known = np.isfinite(spent)
    names = (*(f"f{i}" for i in range(len(columns))), *RHYTHM)
    capped = np.minimum(np.maximum(spent, 0.0), np.quantile(spent[known & (spent > 0)], WINSOR))
    rows = trees.Rows(np.hstack([matrix(frame, columns), terms]), capped, _start(terms), names=names)
    return _Lesson(columns, rows, moment).where(known)


def _terms(rhythm: btyd.BgNbd, worth: spending.GammaGamma, frame: pd.DataFrame, days: int) -> Floats:
    past = btyd.history(frame)
    purchases = np.maximum(rhythm.expected_purchases(*past, days), 0.0)
    each = worth.expected(*spending.spends(frame))
    return np.column_stack([purchases * each, purchases, rhythm.p_alive(*past), rhythm.rate(past.x, past.T), each])


def _start(terms: Floats) -> Floats:
    """The logarithm of what rhythm and worth expect: where the trees have learned nothing, that is the answer."""
    logs: Floats = np.log(np.maximum(terms[:, 0], LEAST))
    return logs


def _trees_to_grow(lesson: _Lesson, how: dict[str, Any], horizon_days: int) -> int:
    latest = lesson.moment.max()
    complete = lesson.moment + np.timedelta64(horizon_days, "D") <= latest
    before, judge = lesson.where(complete), lesson.where(lesson.moment == latest)
    if min((part.rows.outcome > 0).sum() for part in (before, judge)) < spending.FEWEST:
        return CAUTIOUS_TREES
    return trees.grow_until(before.rows, judge.rows, how, most=MOST_TREES, patience=PATIENCE).count
