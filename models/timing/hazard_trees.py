"""Hazard: the chance that a customer comes on each of the next days if not before, as many small questions tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from models import base
from models.base import Floats, matrix, read_json, write_json
from models.btyd import bg_nbd, survival_features
from models.estimators import boosted_trees
from models.survival import censored_durations, kaplan_meier
from models.survival.censored_durations import CensoredDurations, Floats32, Ints, end_of_follow_up
from models.timing import weekday_profile
from models.timing.seasonal_level import CalendarEffect

#: The last days of the periods into which the days ahead are cut: single days first, then longer and longer ones.
PERIOD_LAST_DAYS = (*range(1, 15), 16, 18, 21, 24, 28, 35, 42, 56, 70, 90, 115, 145, 180)
#: Own gaps that a silence is measured against, where the frame has them.
GAP_COLUMNS = ("gap_mean_days", "gap_median_days", "gap_long_days", "gap_max_days")
#: Chosen on both shops at cut-offs before those that are reported. More leaves, or twice the periods, foretell no
#: better: a customer's moments are so alike that trees learn the customer by heart.
LIGHTGBM_PARAMS: dict[str, Any] = {
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 300,
    "lambda_l2": 10.0,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
}
MAX_TREES, PATIENCE = 300, 20
MAX_PERSON_PERIODS = 100_000
#: Trees to grow where there are no earlier moments to learn from and later ones to judge by.
DEFAULT_TREES = 40
#: The fewest next purchases that trees may be grown from.
MIN_PURCHASES = 300
BATCH_ROWS = 2048


@dataclass(frozen=True)
class HazardTrees:
    """Trees grown on top of BG/NBD's chance of buying in each period, given no purchase before it.

    Every customer and moment is asked once for each period in which the purchase could still come (a
    discrete-time hazard: Singer and Willett 1993). Rows still waiting when watching ended count for the periods
    that they were watched through (right-censoring).
    """

    columns: list[str]
    rhythm: bg_nbd.BgNbd
    ensemble: boosted_trees.BoostedTrees
    days: int
    pooled: Floats

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0, days: int = 90, **overrides: Any) -> Self:
        """Learn from the first `days` days of every row.

        label: duration_days = 1 for a purchase on the day of as_of itself, and observed; where observed is 0,
        the days that passed without one. Every moment in the frame gets its own rhythm, fitted to its own
        rows. The latest moments say how many trees to grow, judging trees that were grown from what was known
        before them, but for the calendar's swings, which are those of all moments. `growth` overrides
        LightGBM's settings. Raises TooLittle below 300 next purchases.
        """
        kaplan_meier.require_purchases(label, days, min_purchases=MIN_PURCHASES)
        columns, edges, durations = (
            survival_features.training_columns(frame),
            _period_edges(days),
            CensoredDurations.from_label(frame, label, days),
        )
        sampled = _sample_rows(durations, edges, seed)
        terms, base_log_odds = survival_features.bgnbd_features(frame, edges, sampled)
        base_log_odds += CalendarEffect.fit(frame, durations).log_odds_at(durations.cutoff[sampled], edges)
        inputs = _build_inputs(frame.iloc[sampled], columns, edges, terms, base_log_odds)
        params = boosted_trees.lightgbm_params(LIGHTGBM_PARAMS | overrides, objective="binary", seed=seed)
        durations = durations.subset(sampled)
        ensemble = boosted_trees.fit_trees(
            _person_period_rows(inputs, durations, end_of_follow_up(durations)),
            params,
            _choose_tree_count(inputs, durations, params),
        )
        bgnbd = bg_nbd.BgNbd.fit_frame(base.latest_rows(frame))
        return cls(columns, bgnbd, ensemble, days, kaplan_meier.survival_curve(label, days))

    def score(self, frame: pd.DataFrame) -> Floats:
        """P(the next purchase is more than d days away) for d = 1..days: array (rows, days), never rising."""
        curves = np.empty((len(frame), self.days))
        for start in range(0, len(frame), BATCH_ROWS):
            rows = slice(start, start + BATCH_ROWS)
            curves[rows] = self._survival_curves(frame.iloc[rows])
        return curves

    def population_average(self) -> Floats:
        """The Kaplan-Meier curve of all customers together: array (days,)."""
        return self.pooled

    def save(self, folder: Path, name: str = "model") -> None:
        """Write the trees as LightGBM's text and everything else as JSON; the name tells it from others' files."""
        self.ensemble.save(folder, f"{name}.txt")
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
            bg_nbd.BgNbd(**saved["rhythm"]),
            boosted_trees.BoostedTrees.load(folder, f"{name}.txt"),
            saved["days"],
            np.array(saved["pooled"]),
        )

    def _survival_curves(self, frame: pd.DataFrame) -> Floats:
        summary, edges = bg_nbd.purchase_summary(frame), _period_edges(self.days)
        terms = survival_features.bgnbd_terms(self.rhythm, summary)
        base_log_odds = survival_features.log_odds_ahead(self.rhythm, summary, edges)
        inputs = _build_inputs(frame, self.columns, edges, terms, base_log_odds)
        row, period = (index.ravel() for index in np.indices(inputs.base_log_odds.shape))
        odds = inputs.base_log_odds + self.ensemble.raw_score(_build_design(inputs, row, period)).reshape(
            inputs.base_log_odds.shape
        )
        survival: Floats = np.exp(-np.logaddexp(0, odds) @ _elapsed_shares(edges))
        return survival


class HazardInputs(NamedTuple):
    """What the trees are told of each row, before it is asked once for every period."""

    features: Floats32  # (rows, features)
    recency_days: Floats32  # (rows,): days since the last purchase
    gaps: Floats32  # (rows, gaps): the customer's own
    weekday: Ints  # of the first day ahead, Monday 0
    weekday_lift: Floats32  # (rows, 7): log of how much oftener than one in seven the customer came on a weekday
    base_log_odds: Floats32  # (rows, periods): the rhythm's log odds of buying in each period
    edges: Ints  # (periods + 1,): days from as_of

    def subset(self, which: Any) -> HazardInputs:
        return self._replace(**{name: getattr(self, name)[which] for name in self._fields if name != "edges"})


def _period_edges(days: int) -> Ints:
    return np.array([0, *(day for day in PERIOD_LAST_DAYS if day < days), days], dtype=np.int64)


def _elapsed_shares(edges: Ints) -> Floats:
    """Which share of each period has passed by the end of each day: array (periods, days)."""
    day = np.arange(1, edges[-1] + 1)
    shares: Floats = np.clip((day - edges[:-1, None]) / np.diff(edges)[:, None], 0, 1)
    return shares


def _sample_rows(durations: CensoredDurations, edges: Ints, seed: int) -> Ints:
    """The places of rows that were watched for a day at least; of too many, as many as can be learned from."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(durations.has_follow_up))
    periods = np.searchsorted(edges, durations.follow_up_days[rows])
    sampled: Ints = np.sort(rows[np.cumsum(periods) <= MAX_PERSON_PERIODS])
    return sampled


def _build_inputs(
    frame: pd.DataFrame, columns: list[str], edges: Ints, terms: Floats, base_log_odds: Floats32
) -> HazardInputs:
    features = np.hstack([matrix(frame, columns), terms]).astype(np.float32)
    summary = bg_nbd.purchase_summary(frame)
    recency_days = (summary.T - summary.t_x).astype(np.float32)
    gaps = matrix(frame, [name for name in GAP_COLUMNS if name in columns]).astype(np.float32)
    return HazardInputs(
        features,
        recency_days,
        gaps,
        weekday_profile.first_weekday(frame),
        weekday_profile.log_weekday_lift(frame),
        base_log_odds,
        edges,
    )


def _person_period_rows(
    inputs: HazardInputs, durations: CensoredDurations, end: np.datetime64
) -> boosted_trees.TrainingRows:
    """A row for each period that was over by the end of watching: 1 where the purchase came in it, else 0.

    Of a period that is not over only those would be known who have bought: they would make everybody look eager.
    """
    follow_up_days = durations.follow_up_days[:, None]
    is_complete = censored_durations.has_elapsed(durations.cutoff[:, None], inputs.edges[1:], end)
    row, period = np.nonzero(is_complete & (follow_up_days > inputs.edges[:-1]))
    has_purchase = durations.has_purchase[:, None] & (follow_up_days <= inputs.edges[1:])
    init_score = inputs.base_log_odds[row, period].astype(np.float64)
    return boosted_trees.TrainingRows(
        _build_design(inputs, row, period), has_purchase[row, period].astype(np.float64), init_score
    )


def _build_design(inputs: HazardInputs, row: Ints, period: Ints) -> Floats32:
    """A customer's features and what they mean for one period: the silence by then, and the weekday."""
    first, last = inputs.edges[:-1][period], inputs.edges[1:][period]
    recency_days = inputs.recency_days[row] + first + 1
    weekday = (inputs.weekday[row] + first) % 7
    is_single_day = last == first + 1
    period_terms = [
        last,
        recency_days,
        *(recency_days / np.maximum(gap[row], 1) for gap in inputs.gaps.T),
        np.where(is_single_day, weekday, np.nan),
        np.where(is_single_day, inputs.weekday_lift[row, weekday], 0),
        inputs.base_log_odds[row, period],
    ]
    return np.hstack([inputs.features[row], np.column_stack(period_terms).astype(np.float32)])


def _choose_tree_count(inputs: HazardInputs, durations: CensoredDurations, params: dict[str, Any]) -> int:
    """The number of trees after which trees that know only the past foretell the latest moments best."""
    cutoff = durations.validation_cutoff(int(inputs.edges[-1]))
    if cutoff is None:
        return DEFAULT_TREES
    is_later, past_durations = durations.cutoff >= cutoff, durations.censored_at(cutoff)
    is_before = past_durations.has_follow_up & ~is_later
    if past_durations.has_purchase[is_before].sum() < MIN_PURCHASES / 2:
        return DEFAULT_TREES
    training_rows, validation_rows = (
        _person_period_rows(inputs.subset(mask), part.subset(mask), end_of_follow_up(part))
        for mask, part in ((is_before, past_durations), (is_later, durations))
    )
    return boosted_trees.fit_with_early_stopping(
        training_rows, validation_rows, params, max_trees=MAX_TREES, patience=PATIENCE
    ).tree_count
