"""Discrete-time hazard of the next purchase, by boosted trees on top of BG/NBD."""

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

#: Last days of the periods: single days first, then increasingly long periods.
PERIOD_LAST_DAYS = (*range(1, 15), 16, 18, 21, 24, 28, 35, 42, 56, 70, 90, 115, 145, 180)
#: The customer's own inter-purchase times that recency is divided by, where the frame has them.
GAP_COLUMNS = ("gap_mean_days", "gap_median_days", "gap_long_days", "gap_max_days")
#: Chosen on both shops at cut-offs before those that are reported. More leaves, or twice the periods, predict no
#: better: the rows of one customer are so similar that trees memorise the customer.
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
#: Number of trees where there are no earlier cutoffs to train on and later ones to validate on.
DEFAULT_TREES = 40
#: Minimum number of next purchases to fit on.
MIN_PURCHASES = 300
BATCH_ROWS = 2048


@dataclass(frozen=True)
class HazardTrees:
    """P(purchase in each period ahead, given none before it): boosted trees that start from BG/NBD's log odds.

    Discrete-time survival analysis (Singer and Willett 1993): every customer and cutoff gives one training row for each
    period in which the purchase could still come. Right-censored rows count for the periods of their follow-up.
    """

    columns: list[str]
    bgnbd: bg_nbd.BgNbd
    ensemble: boosted_trees.BoostedTrees
    days: int
    pooled: Floats

    @classmethod
    def fit(cls, frame: pd.DataFrame, label: pd.DataFrame, *, seed: int = 0, days: int = 90, **overrides: Any) -> Self:
        """Fit to the first `days` days of every row.

        label: columns duration_days (1 = a purchase on the day of as_of itself) and observed; where observed is 0,
            duration_days is the number of days without a purchase.
        overrides: replace single LightGBM parameters.

        Each cutoff has its own BG/NBD, fitted to its own rows. The number of trees is validated on the latest cutoffs,
        with trees fitted on what was known before them, except for the calendar effect, which uses all cutoffs. Raises
        InsufficientData with fewer than 300 next purchases.
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
        """P(the next purchase is more than d days away) for d = 1..days: array (n, days), non-increasing."""
        curves = np.empty((len(frame), self.days))
        for start in range(0, len(frame), BATCH_ROWS):
            rows = slice(start, start + BATCH_ROWS)
            curves[rows] = self._survival_curves(frame.iloc[rows])
        return curves

    def population_average(self) -> Floats:
        """The Kaplan-Meier curve of all customers together: array (n_days,)."""
        return self.pooled

    def save(self, folder: Path, name: str = "model") -> None:
        """Write the trees as LightGBM's text and the rest as JSON, in files that begin with `name`.

        The JSON keeps the key of version 0.4.0: rhythm.
        """
        self.ensemble.save(folder, f"{name}.txt")
        content = {
            "columns": self.columns,
            "rhythm": asdict(self.bgnbd),
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
        terms = survival_features.bgnbd_terms(self.bgnbd, summary)
        base_log_odds = survival_features.log_odds_ahead(self.bgnbd, summary, edges)
        inputs = _build_inputs(frame, self.columns, edges, terms, base_log_odds)
        row, period = (index.ravel() for index in np.indices(inputs.base_log_odds.shape))
        log_odds = inputs.base_log_odds + self.ensemble.raw_score(_build_design(inputs, row, period)).reshape(
            inputs.base_log_odds.shape
        )
        survival: Floats = np.exp(-np.logaddexp(0, log_odds) @ _elapsed_shares(edges))
        return survival


class HazardInputs(NamedTuple):
    """The inputs of each row that do not depend on the period."""

    features: Floats32  # (n, features)
    recency_days: Floats32  # (n,): days since the last purchase
    gaps: Floats32  # (n, gap columns)
    weekday: Ints  # (n,): of the first day ahead, Monday 0
    weekday_lift: Floats32  # (n, 7): log of the customer's share of visits on each weekday over 1/7
    base_log_odds: Floats32  # (n, periods): BG/NBD's log odds of a purchase in each period
    edges: Ints  # (periods + 1,): days from as_of

    def subset(self, which: Any) -> HazardInputs:
        """The rows selected by a mask or positions."""
        return self._replace(**{name: getattr(self, name)[which] for name in self._fields if name != "edges"})


def _period_edges(days: int) -> Ints:
    return np.array([0, *(day for day in PERIOD_LAST_DAYS if day < days), days], dtype=np.int64)


def _elapsed_shares(edges: Ints) -> Floats:
    """The share of each period that has passed by the end of each day: array (periods, days)."""
    day = np.arange(1, edges[-1] + 1)
    shares: Floats = np.clip((day - edges[:-1, None]) / np.diff(edges)[:, None], 0, 1)
    return shares


def _sample_rows(durations: CensoredDurations, edges: Ints, seed: int) -> Ints:
    """Sorted positions of rows with at least one day of follow-up, sampled to MAX_PERSON_PERIODS."""
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
    """One training row for each period that had ended by `end`: 1 where the purchase came in it, else 0.

    A period that has not ended would contribute only customers with a purchase, and so overstate the hazard.
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
    """A customer's features and the period terms: recency by then, in days and in own gaps, and the weekday."""
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
    """The number of trees with the lowest loss at the latest cutoffs, for trees fitted on earlier data only."""
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
