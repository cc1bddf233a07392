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

from models import base
from models.base import Floats, feature_columns
from models.btyd import bg_nbd, survival_features
from models.churn import person_periods
from models.churn.person_periods import PeriodInputs, PersonPeriods
from models.churn.seasonal_bg_nbd import BgNbdByCutoff
from models.estimators import boosted_trees, platt_scaling
from models.survival import censored_durations
from models.survival import outcomes as survival_outcomes
from models.survival.censored_durations import CensoredDurations, Ints

#: Chosen on both shops at cut-offs before those that are reported.
LIGHTGBM_PARAMS: dict[str, Any] = {
    "num_leaves": 15,
    "learning_rate": 0.07,
    "min_data_in_leaf": 200,
    "lambda_l2": 10.0,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "max_bin": 63,
}
MAX_TREES, PATIENCE = 300, 30
#: Trees to grow where no later outcome is left to say when to stop.
DEFAULT_TREES = 40
#: Whose features the columns speak of that are asked besides them: alive, rate, recency, then those of the period.
BGNBD_TERM_FEATURES = (base.RECENCY_COLUMN, base.FREQUENCY_COLUMN, base.RECENCY_COLUMN)
EPSILON = 1e-9


@dataclass(frozen=True)
class PeriodHazard:
    """Trees grown on top of the rhythm's chance of a purchase in each quarter, put right moment by moment.

    What a season does to everybody is not for the trees to learn: at each moment the rhythm's log odds are brought
    to that moment's own level first (a line a moment and quarter), so that trees tell customers apart and do not
    foretell the weather. When they answer, the line is that of all moments together.
    """

    columns: list[str]
    ensemble: boosted_trees.BoostedTrees
    lines: list[platt_scaling.PlattScaling]
    usual: list[list[float]]  # the means of the Parts of each quarter, among the latest moment's active customers
    ends: list[int]  # the last day of each quarter, after 0

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        label: pd.DataFrame,
        edges: Ints,
        bgnbd_by_cutoff: BgNbdByCutoff,
        *,
        seed: int,
        **overrides: Any,
    ) -> Self:
        """Learn from active customers' rows.

        label: duration_days and observed, as far as each row was watched. edges: as asking.ends gives. rhythms: of each
        moment in the frame.
        """
        columns, horizon_days = feature_columns(frame), int(edges[-1])
        durations = CensoredDurations.from_label(frame, label, horizon_days)
        sampled = person_periods.sample_rows(
            durations.has_follow_up & survival_outcomes.is_active(frame, horizon_days), seed
        )
        durations, inputs = (
            durations.subset(sampled),
            person_periods.build_inputs_by_cutoff(frame.iloc[sampled], columns, bgnbd_by_cutoff, edges),
        )
        params = boosted_trees.lightgbm_params(LIGHTGBM_PARAMS | overrides, objective="binary", seed=seed)
        periods = person_periods.expand_periods(
            inputs, durations, edges, censored_durations.end_of_follow_up(durations)
        )
        ensemble = boosted_trees.fit_trees(
            periods.training_rows(inputs, edges), params, _choose_tree_count(inputs, durations, edges, params)
        )
        period_outcomes = [periods.period_outcomes(period) for period in range(len(edges) - 1)]
        fitted = cls(
            columns, ensemble, [platt_scaling.fit_platt(*pair) for pair in period_outcomes], [], edges.tolist()
        )
        latest = base.latest_rows(frame)
        is_active = survival_outcomes.is_active(latest, horizon_days)
        return fitted._with_means(
            latest[is_active] if is_active.any() else latest, bgnbd_by_cutoff[max(bgnbd_by_cutoff)]
        )

    def no_purchase_log_odds(self, frame: pd.DataFrame, bgnbd: bg_nbd.BgNbd) -> Floats:
        """Log odds of no purchase within the horizon, a row each."""
        log_no_purchase: Floats = -np.logaddexp(0, self._period_log_odds(frame, bgnbd)).sum(axis=1)
        return _log_odds(log_no_purchase)

    def contributions(self, frame: pd.DataFrame, bgnbd: bg_nbd.BgNbd) -> tuple[Floats, list[str]]:
        """How much each column moves each row's log odds of no purchase, and the feature each column speaks of.

        The trees' part is TreeSHAP's (Lundberg 2020) for the first quarter; only the silence by its end tells a
        later one from it. A quarter's log odds of buying become log odds of staying away by the slope between the
        usual and the row's own, quarter after quarter: the parts add up exactly.
        """
        inputs, edges = self._build_inputs(frame, bgnbd), np.array(self.ends)
        parts = self._log_odds_parts(inputs, self._frequency_effect(frame, bgnbd))
        width = inputs.features.shape[1]
        shap = self.ensemble.contributions(person_periods.build_design(inputs, np.arange(len(frame)), 0, edges))
        later_tree_effect = parts.tree_effect - shap[:, :width].sum(axis=1)[:, None]
        slopes = _slopes(parts.log_odds(self.lines), self._mean_log_odds())
        line_slopes = np.array([line.slope for line in self.lines])
        frequency_part = (slopes * line_slopes * (parts.frequency_effect - self.usual[0])).sum(axis=1)
        recency_part = (
            slopes * (line_slopes * (parts.recency_effect - self.usual[1]) + later_tree_effect - self.usual[2])
        ).sum(axis=1)
        totals = np.column_stack([slopes.sum(axis=1)[:, None] * shap[:, :width], frequency_part, recency_part])
        return totals, [*self.columns, *BGNBD_TERM_FEATURES, base.FREQUENCY_COLUMN, base.RECENCY_COLUMN]

    def to_dict(self) -> dict[str, Any]:
        """All there is to keep besides the trees."""
        own = {name: getattr(self, name) for name in ("columns", "usual", "ends")}
        return own | {"lines": [list(line) for line in self.lines]}

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text."""
        self.ensemble.save(folder)

    @classmethod
    def load(cls, folder: Path, content: dict[str, Any]) -> Self:
        """Read back what `save` and `numbers` gave."""
        lines = [platt_scaling.PlattScaling(*line) for line in content["lines"]]
        own = (content[name] for name in ("usual", "ends"))
        return cls(content["columns"], boosted_trees.BoostedTrees.load(folder), lines, *own)

    def _log_odds_parts(self, inputs: PeriodInputs, frequency_effect: Floats) -> LogOddsParts:
        all_rows, edges = np.arange(len(inputs.recency_days)), np.array(self.ends)
        tree_effects = [
            self.ensemble.raw_score(person_periods.build_design(inputs, all_rows, period, edges))
            for period in range(len(self.lines))
        ]
        return LogOddsParts(frequency_effect, inputs.base_log_odds - frequency_effect, np.column_stack(tree_effects))

    def _mean_log_odds(self) -> Floats:
        return LogOddsParts(*(np.array(part)[None, :] for part in self.usual)).log_odds(self.lines)[0]

    def _with_means(self, frame: pd.DataFrame, bgnbd: bg_nbd.BgNbd) -> Self:
        """The same, knowing what is usual among these customers."""
        parts = self._log_odds_parts(self._build_inputs(frame, bgnbd), self._frequency_effect(frame, bgnbd))
        return replace(self, usual=[part.mean(axis=0).tolist() for part in parts])

    def _build_inputs(self, frame: pd.DataFrame, bgnbd: bg_nbd.BgNbd) -> PeriodInputs:
        return person_periods.build_inputs(frame, self.columns, bgnbd, np.array(self.ends))

    def _frequency_effect(self, frame: pd.DataFrame, bgnbd: bg_nbd.BgNbd) -> Floats:
        """What the rhythm's log odds would be had everybody bought just now."""
        summary = bg_nbd.purchase_summary(frame)
        bought_today = summary._replace(t_x=summary.T)
        return survival_features.log_odds_ahead(bgnbd, bought_today, np.array(self.ends)).astype(np.float64)

    def _period_log_odds(self, frame: pd.DataFrame, bgnbd: bg_nbd.BgNbd) -> Floats:
        """Log odds of a purchase in each quarter, given none before it: array (rows, quarters)."""
        return self._log_odds_parts(self._build_inputs(frame, bgnbd), self._frequency_effect(frame, bgnbd)).log_odds(
            self.lines
        )


class LogOddsParts(NamedTuple):
    """What log odds of a purchase are made of, each (rows, quarters): the rhythm had everybody bought just now, what
    the present silence adds to it, and what the trees add."""

    frequency_effect: Floats
    recency_effect: Floats
    tree_effect: Floats

    def log_odds(self, lines: list[platt_scaling.PlattScaling]) -> Floats:
        """The log odds, by each quarter's line."""
        calibrated = [
            line(self.frequency_effect[:, period] + self.recency_effect[:, period]) for period, line in enumerate(lines)
        ]
        total: Floats = np.column_stack(calibrated) + self.tree_effect
        return total


def _choose_tree_count(inputs: PeriodInputs, durations: CensoredDurations, edges: Ints, params: dict[str, Any]) -> int:
    """The number of trees after which trees that know only the past tell the latest moment's customers apart best.

    The latest moment is the last whose whole horizon is over; what came after it has taught nobody.
    """
    end = censored_durations.end_of_follow_up(durations)
    complete_cutoffs = durations.cutoff[censored_durations.has_elapsed(durations.cutoff, int(edges[-1]), end)]
    if not len(complete_cutoffs):
        return DEFAULT_TREES
    latest, past_durations = complete_cutoffs.max(), durations.censored_at(complete_cutoffs.max())
    is_before, is_latest = past_durations.has_follow_up & (durations.cutoff < latest), durations.cutoff == latest
    training_periods = person_periods.expand_periods(
        inputs.subset(is_before), past_durations.subset(is_before), edges, latest
    )
    validation_periods = person_periods.expand_periods(
        inputs.subset(is_latest), durations.subset(is_latest), edges, end
    )
    if min(_rarer_count(training_periods), _rarer_count(validation_periods)) < survival_outcomes.MIN_OUTCOMES:
        return DEFAULT_TREES
    training_rows, validation_rows = (
        training_periods.training_rows(inputs.subset(is_before), edges),
        validation_periods.training_rows(inputs.subset(is_latest), edges),
    )
    return boosted_trees.fit_with_early_stopping(
        training_rows, validation_rows, params, max_trees=MAX_TREES, patience=PATIENCE
    ).tree_count


def _rarer_count(periods: PersonPeriods) -> float:
    return float(min(periods.has_purchase.sum(), (1 - periods.has_purchase).sum()))


def _log_odds(log_chance: Floats) -> Floats:
    """Log odds of a chance that is known by its logarithm."""
    clipped = np.minimum(log_chance, -EPSILON)
    odds: Floats = clipped - np.log(-np.expm1(clipped))
    return odds


def _slopes(odds: Floats, mean_log_odds: Floats) -> Floats:
    """By how much the log odds of staying away change with each quarter's log odds of buying: (rows, quarters)."""
    log_stays = -np.logaddexp(0, np.broadcast_to(mean_log_odds, odds.shape))
    log_no_purchase = log_stays.sum(axis=1)
    slopes = np.empty(odds.shape)
    for period in range(odds.shape[1]):
        moved = log_no_purchase - log_stays[:, period] - np.logaddexp(0, odds[:, period])
        difference = odds[:, period] - mean_log_odds[period]
        derivative = -expit(mean_log_odds[period]) / np.maximum(
            -np.expm1(np.minimum(log_no_purchase, -EPSILON)), EPSILON
        )
        is_far = np.abs(difference) > 1e-6
        slopes[:, period] = np.where(
            is_far, (_log_odds(moved) - _log_odds(log_no_purchase)) / np.where(is_far, difference, 1.0), derivative
        )
        log_no_purchase = moved
    return slopes
