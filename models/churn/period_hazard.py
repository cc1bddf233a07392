"""Quarters: will they come in the first quarter of the horizon, and if not, in the second, and so on?

To stay away for the whole horizon is to stay away in each of its quarters, each given the ones before it. A quarter
is over sooner than the horizon, so that last week's customers teach as well as last month's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from scipy.special import expit

from models import asking, btyd, fates, season, trees, waits
from models.asking import Asked, Given
from models.base import Floats, feature_columns
from models.seasoned import Rhythms
from models.waits import Waits, Whole

#: Chosen on both shops at cut-offs before those that are reported.
GROWTH: dict[str, Any] = {
    "num_leaves": 15,
    "learning_rate": 0.07,
    "min_data_in_leaf": 200,
    "lambda_l2": 10.0,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
}
MOST_TREES, PATIENCE = 300, 30
#: Trees to grow where no later outcome is left to say when to stop.
CAUTIOUS_TREES = 40
#: Whose features the columns speak of that are asked besides them: alive, rate, recency, then those of the period.
RHYTHM = (btyd.SILENT, btyd.RARE, btyd.SILENT)
LEAST = 1e-9


@dataclass(frozen=True)
class Quarters:
    """Trees grown on top of the rhythm's chance of a purchase in each quarter, put right moment by moment.

    What a season does to everybody is not for the trees to learn: at each moment the rhythm's log odds are brought
    to that moment's own level first (a line a moment and quarter), so that trees tell customers apart and do not
    foretell the weather. When they answer, the line is that of all moments together.
    """

    columns: list[str]
    grown: trees.Trees
    lines: list[season.Line]
    usual: list[list[float]]  # the means of the Parts of each quarter, among the latest moment's active customers
    ends: list[int]  # the last day of each quarter, after 0

    @classmethod
    def fit(
        cls, frame: pd.DataFrame, label: pd.DataFrame, edges: Whole, rhythms: Rhythms, *, seed: int, **growth: Any
    ) -> Self:
        """Learn from active customers' rows.

        label: duration_days and observed, as far as each row was watched. edges: as asking.ends gives. rhythms: of each
        moment in the frame.
        """
        columns, horizon_days = feature_columns(frame), int(edges[-1])
        watch = Waits.of(frame, label, horizon_days)
        chosen = asking.some(watch.begun & fates.active(frame, horizon_days), seed)
        watch, given = watch.where(chosen), asking.given_then(frame.iloc[chosen], columns, rhythms, edges)
        how = trees.settings(GROWTH | growth, objective="binary", seed=seed)
        asked = asking.ask(given, watch, edges, asking.end_of(watch))
        grown = trees.grow(asked.rows(given, edges), how, _count(given, watch, edges, how))
        each = [asked.of(quarter) for quarter in range(len(edges) - 1)]
        learned = cls(columns, grown, [season.line(*those) for those in each], [], edges.tolist())
        now = btyd.latest(frame)
        active = fates.active(now, horizon_days)
        return learned._with_usual(now[active] if active.any() else now, rhythms[max(rhythms)])

    def log_odds_quiet(self, frame: pd.DataFrame, rhythm: btyd.BgNbd) -> Floats:
        """Log odds of no purchase within the horizon, a row each."""
        silent: Floats = -np.logaddexp(0, self._odds(frame, rhythm)).sum(axis=1)
        return _log_odds(silent)

    def contributions(self, frame: pd.DataFrame, rhythm: btyd.BgNbd) -> tuple[Floats, list[str]]:
        """How much each column moves each row's log odds of no purchase, and the feature each column speaks of.

        The trees' part is TreeSHAP's (Lundberg 2020) for the first quarter; only the silence by its end tells a
        later one from it. A quarter's log odds of buying become log odds of staying away by the slope between the
        usual and the row's own, quarter after quarter: the parts add up exactly.
        """
        told, edges = self._told(frame, rhythm), np.array(self.ends)
        parts = self._rhythm_parts(told, self._rare(frame, rhythm))
        width = told.features.shape[1]
        shap = self.grown.contributions(asking.design(told, np.arange(len(frame)), 0, edges))
        later = parts.grown - shap[:, :width].sum(axis=1)[:, None]
        slopes = _slopes(parts.odds(self.lines), self._usual_odds())
        slope = np.array([line.slope for line in self.lines])
        seldom = (slopes * slope * (parts.rare - self.usual[0])).sum(axis=1)
        present = (slopes * (slope * (parts.silent - self.usual[1]) + later - self.usual[2])).sum(axis=1)
        whole = np.column_stack([slopes.sum(axis=1)[:, None] * shap[:, :width], seldom, present])
        return whole, [*self.columns, *RHYTHM, btyd.RARE, btyd.SILENT]

    def numbers(self) -> dict[str, Any]:
        """All there is to keep besides the trees."""
        own = {name: getattr(self, name) for name in ("columns", "usual", "ends")}
        return own | {"lines": [list(line) for line in self.lines]}

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text."""
        self.grown.save(folder)

    @classmethod
    def load(cls, folder: Path, numbers: dict[str, Any]) -> Self:
        """Read back what `save` and `numbers` gave."""
        lines = [season.Line(*line) for line in numbers["lines"]]
        own = (numbers[name] for name in ("usual", "ends"))
        return cls(numbers["columns"], trees.Trees.load(folder), lines, *own)

    def _rhythm_parts(self, told: Given, rare: Floats) -> Parts:
        everybody, edges = np.arange(len(told.silent)), np.array(self.ends)
        each = [self.grown.added(asking.design(told, everybody, quarter, edges)) for quarter in range(len(self.lines))]
        return Parts(rare, told.ahead - rare, np.column_stack(each))

    def _usual_odds(self) -> Floats:
        return Parts(*(np.array(part)[None, :] for part in self.usual)).odds(self.lines)[0]

    def _with_usual(self, frame: pd.DataFrame, rhythm: btyd.BgNbd) -> Self:
        """The same, knowing what is usual among these customers."""
        parts = self._rhythm_parts(self._told(frame, rhythm), self._rare(frame, rhythm))
        return replace(self, usual=[part.mean(axis=0).tolist() for part in parts])

    def _told(self, frame: pd.DataFrame, rhythm: btyd.BgNbd) -> Given:
        return asking.given_now(frame, self.columns, rhythm, np.array(self.ends))

    def _rare(self, frame: pd.DataFrame, rhythm: btyd.BgNbd) -> Floats:
        """What the rhythm's log odds would be had everybody bought just now."""
        past = btyd.history(frame)
        fresh = past._replace(t_x=past.T)
        return waits.log_odds_ahead(rhythm, fresh, np.array(self.ends)).astype(np.float64)

    def _odds(self, frame: pd.DataFrame, rhythm: btyd.BgNbd) -> Floats:
        """Log odds of a purchase in each quarter, given none before it: array (rows, quarters)."""
        return self._rhythm_parts(self._told(frame, rhythm), self._rare(frame, rhythm)).odds(self.lines)


class Parts(NamedTuple):
    """What log odds of a purchase are made of, each (rows, quarters): the rhythm had everybody bought just now, what
    the present silence adds to it, and what the trees add."""

    rare: Floats
    silent: Floats
    grown: Floats

    def odds(self, lines: list[season.Line]) -> Floats:
        """The log odds, by each quarter's line."""
        each = [line(self.rare[:, quarter] + self.silent[:, quarter]) for quarter, line in enumerate(lines)]
        whole: Floats = np.column_stack(each) + self.grown
        return whole


def _count(given: Given, watch: Waits, edges: Whole, how: dict[str, Any]) -> int:
    """The number of trees after which trees that know only the past tell the latest moment's customers apart best.

    The latest moment is the last whose whole horizon is over; what came after it has taught nobody.
    """
    end = asking.end_of(watch)
    over = watch.moment[waits.over(watch.moment, int(edges[-1]), end)]
    if not len(over):
        return CAUTIOUS_TREES
    latest, past = over.max(), watch.until(over.max())
    before, there = past.begun & (watch.moment < latest), watch.moment == latest
    pupils = asking.ask(given.rows(before), past.where(before), edges, latest)
    judge = asking.ask(given.rows(there), watch.where(there), edges, end)
    if min(_rarer(pupils), _rarer(judge)) < fates.FEWEST:
        return CAUTIOUS_TREES
    mine, theirs = pupils.rows(given.rows(before), edges), judge.rows(given.rows(there), edges)
    return trees.grow_until(mine, theirs, how, most=MOST_TREES, patience=PATIENCE).count


def _rarer(asked: Asked) -> float:
    return float(min(asked.bought.sum(), (1 - asked.bought).sum()))


def _log_odds(log_chance: Floats) -> Floats:
    """Log odds of a chance that is known by its logarithm."""
    kept = np.minimum(log_chance, -LEAST)
    odds: Floats = kept - np.log(-np.expm1(kept))
    return odds


def _slopes(odds: Floats, usual: Floats) -> Floats:
    """By how much the log odds of staying away change with each quarter's log odds of buying: (rows, quarters)."""
    stays = -np.logaddexp(0, np.broadcast_to(usual, odds.shape))
    silent = stays.sum(axis=1)
    slopes = np.empty(odds.shape)
    for quarter in range(odds.shape[1]):
        moved = silent - stays[:, quarter] - np.logaddexp(0, odds[:, quarter])
        apart = odds[:, quarter] - usual[quarter]
        steep = -expit(usual[quarter]) / np.maximum(-np.expm1(np.minimum(silent, -LEAST)), LEAST)
        far = np.abs(apart) > 1e-6
        slopes[:, quarter] = np.where(far, (_log_odds(moved) - _log_odds(silent)) / np.where(far, apart, 1.0), steep)
        silent = moved
    return slopes
