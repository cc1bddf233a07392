"""Hazard: the chance that a customer comes on each of the next days if not before, as many small questions tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from models import btyd, fates, trees, waits
from models.asking import end_of
from models.base import Floats, matrix, read_json, write_json
from models.waits import Calendar, Singles, Waits, Whole

#: The last days of the periods into which the days ahead are cut: single days first, then longer and longer ones.
LAST_DAYS = (*range(1, 15), 16, 18, 21, 24, 28, 35, 42, 56, 70, 90, 115, 145, 180)
#: Own gaps that a silence is measured against, where the frame has them.
GAPS = ("gap_mean_days", "gap_median_days", "gap_long_days", "gap_max_days")
#: Chosen on both shops at cut-offs before those that are reported. More leaves, or twice the periods, foretell no
#: better: a customer's moments are so alike that trees learn the customer by heart.
GROWTH: dict[str, Any] = {
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 300,
    "lambda_l2": 10.0,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
}
MOST_TREES, PATIENCE = 300, 20
MOST_PERIODS = 100_000
#: Trees to grow where there are no earlier moments to learn from and later ones to judge by.
CAUTIOUS_TREES = 40
#: The fewest next purchases that trees may be grown from.
FEWEST = 300
ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class Hazard:
    """Trees grown on top of BG/NBD's chance of buying in each period, given no purchase before it.

    Every customer and moment is asked once for each period in which the purchase could still come (a
    discrete-time hazard: Singer and Willett 1993). Rows still waiting when watching ended count for the periods
    that they were watched through (right-censoring).
    """

    columns: list[str]
    rhythm: btyd.BgNbd
    grown: trees.Trees
    days: int
    pooled: Floats

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0, days: int = 90, **growth: Any) -> Self:
        """Learn from the first `days` days of every row.

        label: duration_days = 1 for a purchase on the day of as_of itself, and observed; where observed is 0,
        the days that passed without one. Every moment in the frame gets its own rhythm, fitted to its own
        rows. The latest moments say how many trees to grow, judging trees that were grown from what was known
        before them, but for the calendar's swings, which are those of all moments. `growth` overrides
        LightGBM's settings. Raises TooLittle below 300 next purchases.
        """
        fates.enough_outcomes(label, days, fewest=FEWEST)
        columns, edges, watch = waits.telling(frame), _edges(days), Waits.of(frame, label, days)
        chosen = _some_rows(watch, edges, seed)
        terms, ahead = waits.rhythms(frame, edges, chosen)
        ahead += Calendar.of(frame, watch).on(watch.moment[chosen], edges)
        given = _given(frame.iloc[chosen], columns, edges, terms, ahead)
        how = trees.settings(GROWTH | growth, objective="binary", seed=seed)
        watch = watch.where(chosen)
        grown = trees.grow(_asked(given, watch, end_of(watch)), how, _count(given, watch, how))
        rhythm = btyd.BgNbd.fit_frame(btyd.latest(frame))
        return cls(columns, rhythm, grown, days, fates.kaplan_meier(label, days))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(the next purchase is more than d days away) for d = 1..days: array (rows, days), never rising."""
        curves = np.empty((len(frame), self.days))
        for start in range(0, len(frame), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            curves[rows] = self._curves(frame.iloc[rows])
        return curves

    def typical(self) -> Floats:
        """The Kaplan-Meier curve of all customers together: array (days,)."""
        return self.pooled

    def save(self, folder: Path, name: str = "model") -> None:
        """Write the trees as LightGBM's text and everything else as JSON; the name tells it from others' files."""
        self.grown.save(folder, f"{name}.txt")
        content = {
            "columns": self.columns,
            "rhythm": asdict(self.rhythm),
            "days": self.days,
            "pooled": self.pooled.tolist(),
        }
        write_json(folder / f"{name}.json", content)

    @classmethod
    def load(cls, folder: Path, name: str = "model") -> Self:
        """Read the trees and the rest back."""
        saved = read_json(folder / f"{name}.json")
        return cls(
            saved["columns"],
            btyd.BgNbd(**saved["rhythm"]),
            trees.Trees.load(folder, f"{name}.txt"),
            saved["days"],
            np.array(saved["pooled"]),
        )

    def _curves(self, frame: pd.DataFrame) -> Floats:
        past, edges = btyd.history(frame), _edges(self.days)
        terms = waits.rhythm_terms(self.rhythm, past)
        ahead = waits.log_odds_ahead(self.rhythm, past, edges)
        given = _given(frame, self.columns, edges, terms, ahead)
        row, period = (place.ravel() for place in np.indices(given.ahead.shape))
        odds = given.ahead + self.grown.added(_design(given, row, period)).reshape(given.ahead.shape)
        passed: Floats = np.exp(-np.logaddexp(0, odds) @ _days_of_periods(edges))
        return passed


class Given(NamedTuple):
    """What the trees are told of each row, before it is asked once for every period."""

    features: Singles  # (rows, features)
    silent: Singles  # (rows,): days since the last purchase
    gaps: Singles  # (rows, gaps): the customer's own
    weekday: Whole  # of the first day ahead, Monday 0
    habit: Singles  # (rows, 7): log of how much oftener than one in seven the customer came on a weekday
    ahead: Singles  # (rows, periods): the rhythm's log odds of buying in each period
    edges: Whole  # (periods + 1,): days from as_of

    def rows(self, which: Any) -> Given:
        return self._replace(**{name: getattr(self, name)[which] for name in self._fields if name != "edges"})


def _edges(days: int) -> Whole:
    return np.array([0, *(day for day in LAST_DAYS if day < days), days], dtype=np.int64)


def _days_of_periods(edges: Whole) -> Floats:
    """Which share of each period has passed by the end of each day: array (periods, days)."""
    day = np.arange(1, edges[-1] + 1)
    shares: Floats = np.clip((day - edges[:-1, None]) / np.diff(edges)[:, None], 0, 1)
    return shares


def _some_rows(watch: Waits, edges: Whole, seed: int) -> Whole:
    """The places of rows that were watched for a day at least; of too many, as many as can be learned from."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(watch.begun))
    periods = np.searchsorted(edges, watch.watched[rows])
    kept: Whole = np.sort(rows[np.cumsum(periods) <= MOST_PERIODS])
    return kept


def _given(frame: pd.DataFrame, columns: list[str], edges: Whole, terms: Floats, ahead: Singles) -> Given:
    features = np.hstack([matrix(frame, columns), terms]).astype(np.float32)
    past = btyd.history(frame)
    silent = (past.T - past.t_x).astype(np.float32)
    gaps = matrix(frame, [name for name in GAPS if name in columns]).astype(np.float32)
    return Given(features, silent, gaps, waits.first_weekday(frame), waits.habit(frame), ahead, edges)


def _asked(given: Given, watch: Waits, end: np.datetime64) -> trees.Rows:
    """A row for each period that was over by the end of watching: 1 where the purchase came in it, else 0.

    Of a period that is not over only those would be known who have bought: they would make everybody look eager.
    """
    watched = watch.watched[:, None]
    over = waits.over(watch.moment[:, None], given.edges[1:], end)
    row, period = np.nonzero(over & (watched > given.edges[:-1]))
    came = watch.bought[:, None] & (watched <= given.edges[1:])
    start = given.ahead[row, period].astype(np.float64)
    return trees.Rows(_design(given, row, period), came[row, period].astype(np.float64), start)


def _design(given: Given, row: Whole, period: Whole) -> Singles:
    """A customer's features and what they mean for one period: the silence by then, and the weekday."""
    first, last = given.edges[:-1][period], given.edges[1:][period]
    silent = given.silent[row] + first + 1
    weekday = (given.weekday[row] + first) % 7
    single = last == first + 1
    told = [
        last,
        silent,
        *(silent / np.maximum(gap[row], 1) for gap in given.gaps.T),
        np.where(single, weekday, np.nan),
        np.where(single, given.habit[row, weekday], 0),
        given.ahead[row, period],
    ]
    return np.hstack([given.features[row], np.column_stack(told).astype(np.float32)])


def _count(given: Given, watch: Waits, how: dict[str, Any]) -> int:
    """The number of trees after which trees that know only the past foretell the latest moments best."""
    split = watch.split(int(given.edges[-1]))
    if split is None:
        return CAUTIOUS_TREES
    later, past = watch.moment >= split, watch.until(split)
    before = past.begun & ~later
    if past.bought[before].sum() < FEWEST / 2:
        return CAUTIOUS_TREES
    pupils, judge = (
        _asked(given.rows(who), part.where(who), end_of(part)) for who, part in ((before, past), (later, watch))
    )
    return trees.grow_until(pupils, judge, how, most=MOST_TREES, patience=PATIENCE).count
