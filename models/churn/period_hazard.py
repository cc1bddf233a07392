"""Discrete-time hazard of a purchase over the periods of the horizon, usually four of equal length.

No purchase within the horizon means no purchase in each period, given none in the periods before it. A period is over
sooner than the horizon, so that recent cutoffs have outcomes to train on too.
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
from models.survival import censored_durations, outcomes
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
#: Number of trees where no later outcomes remain for early stopping.
DEFAULT_TREES = 40
#: Features to which the BG/NBD terms of the design are attributed: P(alive), purchase rate, recency.
BGNBD_TERM_FEATURES = (base.RECENCY_COLUMN, base.FREQUENCY_COLUMN, base.RECENCY_COLUMN)
EPSILON = 1e-9


@dataclass(frozen=True)
class PeriodHazard:
    """P(purchase in each period of the horizon, given none before it): boosted trees on top of recalibrated BG/NBD.

    Seasonal effects common to all customers are not left to the trees: BG/NBD's log odds are first recalibrated by
    Platt scaling within each cutoff and period, so that trees separate customers and do not predict the season. At
    prediction time the scaling of a period is the one fitted on all cutoffs together.
    """

    columns: list[str]
    ensemble: boosted_trees.BoostedTrees
    lines: list[platt_scaling.PlattScaling]
    usual: list[list[float]]  # mean LogOddsParts of each period, over active customers of the latest cutoff
    ends: list[int]  # 0, then the last day of each period

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
        """Fit on the rows of active customers.

        label: columns duration_days and observed, for as many days as each row was followed.
        edges: (n_periods + 1,): days from as_of, from `person_periods.period_edges`.
        bgnbd_by_cutoff: a fit for every cutoff in the frame.
        overrides: replace single LightGBM parameters.
        """
        columns, horizon_days = feature_columns(frame), int(edges[-1])
        durations = CensoredDurations.from_label(frame, label, horizon_days)
        sampled = person_periods.sample_rows(durations.has_follow_up & outcomes.is_active(frame, horizon_days), seed)
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
        is_active = outcomes.is_active(latest, horizon_days)
        return fitted._with_means(
            latest[is_active] if is_active.any() else latest, bgnbd_by_cutoff[max(bgnbd_by_cutoff)]
        )

    def no_purchase_log_odds(self, frame: pd.DataFrame, bgnbd: bg_nbd.BgNbd) -> Floats:
        """Log odds of no purchase within the horizon: array (n,)."""
        log_no_purchase: Floats = -np.logaddexp(0, self._period_log_odds(frame, bgnbd)).sum(axis=1)
        return _log_odds(log_no_purchase)

    def contributions(self, frame: pd.DataFrame, bgnbd: bg_nbd.BgNbd) -> tuple[Floats, list[str]]:
        """Effects on the log odds of no purchase, (n, columns), and the feature that each column is attributed to.

        The trees' part is TreeSHAP (Lundberg 2020) for the first period; the difference to later periods is attributed
        to recency, the only input that changes. Log odds of a purchase in a period become log odds of no purchase by
        the slope between the mean and the row's own value, period after period: the parts add up exactly.
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
        effects = np.column_stack([slopes.sum(axis=1)[:, None] * shap[:, :width], frequency_part, recency_part])
        return effects, [*self.columns, *BGNBD_TERM_FEATURES, base.FREQUENCY_COLUMN, base.RECENCY_COLUMN]

    def to_dict(self) -> dict[str, Any]:
        """All parameters besides the trees, as JSON values."""
        content = {name: getattr(self, name) for name in ("columns", "usual", "ends")}
        return content | {"lines": [list(line) for line in self.lines]}

    def save(self, folder: Path) -> None:
        """Write the trees as LightGBM's text."""
        self.ensemble.save(folder)

    @classmethod
    def load(cls, folder: Path, content: dict[str, Any]) -> Self:
        """Read what `save` wrote; `content` is what `to_dict` returned."""
        lines = [platt_scaling.PlattScaling(*line) for line in content["lines"]]
        means_and_ends = (content[name] for name in ("usual", "ends"))
        return cls(content["columns"], boosted_trees.BoostedTrees.load(folder), lines, *means_and_ends)

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
        """The same model with the mean log odds parts of these customers, against which contributions are measured."""
        parts = self._log_odds_parts(self._build_inputs(frame, bgnbd), self._frequency_effect(frame, bgnbd))
        return replace(self, usual=[part.mean(axis=0).tolist() for part in parts])

    def _build_inputs(self, frame: pd.DataFrame, bgnbd: bg_nbd.BgNbd) -> PeriodInputs:
        return person_periods.build_inputs(frame, self.columns, bgnbd, np.array(self.ends))

    def _frequency_effect(self, frame: pd.DataFrame, bgnbd: bg_nbd.BgNbd) -> Floats:
        """BG/NBD's log odds had every customer bought on the cutoff day: array (n, periods)."""
        summary = bg_nbd.purchase_summary(frame)
        bought_today = summary._replace(t_x=summary.T)
        return survival_features.log_odds_ahead(bgnbd, bought_today, np.array(self.ends)).astype(np.float64)

    def _period_log_odds(self, frame: pd.DataFrame, bgnbd: bg_nbd.BgNbd) -> Floats:
        """Log odds of a purchase in each period, given none before it: array (n, periods)."""
        return self._log_odds_parts(self._build_inputs(frame, bgnbd), self._frequency_effect(frame, bgnbd)).log_odds(
            self.lines
        )


class LogOddsParts(NamedTuple):
    """The parts of the log odds of a purchase, each (n, periods).

    frequency_effect: BG/NBD's log odds had every customer bought on the cutoff day.
    recency_effect: what the days since the last purchase add to it.
    tree_effect: what the trees add.
    """

    frequency_effect: Floats
    recency_effect: Floats
    tree_effect: Floats

    def log_odds(self, lines: list[platt_scaling.PlattScaling]) -> Floats:
        """The log odds (n, periods), after the Platt scaling of each period."""
        calibrated = [
            line(self.frequency_effect[:, period] + self.recency_effect[:, period]) for period, line in enumerate(lines)
        ]
        total: Floats = np.column_stack(calibrated) + self.tree_effect
        return total


def _choose_tree_count(inputs: PeriodInputs, durations: CensoredDurations, edges: Ints, params: dict[str, Any]) -> int:
    """The number of trees with the lowest loss at the latest complete cutoff, for trees fitted on earlier data only.

    The latest complete cutoff is the last whose whole horizon is over; nothing after it is used to fit.
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
    if min(_rarer_count(training_periods), _rarer_count(validation_periods)) < outcomes.MIN_OUTCOMES:
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


def _log_odds(log_probability: Floats) -> Floats:
    """Log odds of a probability given by its logarithm."""
    clipped = np.minimum(log_probability, -EPSILON)
    odds: Floats = clipped - np.log(-np.expm1(clipped))
    return odds


def _slopes(odds: Floats, mean_log_odds: Floats) -> Floats:
    """Change of the log odds of no purchase with each period's log odds of a purchase: array (n, periods)."""
    log_period_survival = -np.logaddexp(0, np.broadcast_to(mean_log_odds, odds.shape))
    log_no_purchase = log_period_survival.sum(axis=1)
    slopes = np.empty(odds.shape)
    for period in range(odds.shape[1]):
        next_log_no_purchase = log_no_purchase - log_period_survival[:, period] - np.logaddexp(0, odds[:, period])
        difference = odds[:, period] - mean_log_odds[period]
        derivative = -expit(mean_log_odds[period]) / np.maximum(
            -np.expm1(np.minimum(log_no_purchase, -EPSILON)), EPSILON
        )
        is_far = np.abs(difference) > 1e-6
        slopes[:, period] = np.where(
            is_far,
            (_log_odds(next_log_no_purchase) - _log_odds(log_no_purchase)) / np.where(is_far, difference, 1.0),
            derivative,
        )
        log_no_purchase = next_log_no_purchase
    return slopes
