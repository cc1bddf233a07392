"""Asking: who is asked what of each quarter of the horizon, and what is known of them when it is asked."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from models import base
from models.base import Floats, matrix
from models.btyd import bg_nbd, survival_features
from models.churn import seasonal_calibration
from models.churn.seasonal_bg_nbd import BgNbdByCutoff
from models.estimators import boosted_trees, platt_scaling
from models.survival import censored_durations
from models.survival.censored_durations import CensoredDurations, Floats32, Ints

#: A horizon has so many quarters, unless it is very short.
N_PERIODS = 4
#: So many customers and moments teach at most.
MAX_ROWS = 60_000
#: Own gaps that a silence is measured against, where the frame has them.
GAP_COLUMNS = ("gap_mean_days", "gap_median_days", "gap_max_days")


class PeriodInputs(NamedTuple):
    """What is known of each row before a quarter is chosen."""

    features: Floats32  # (rows, features and the rhythm's terms)
    base_log_odds: Floats  # (rows, quarters): the rhythm's log odds of a purchase in each, given none before
    recency_days: Floats  # days since the last purchase at as_of
    gaps: Floats  # (rows, own gaps)

    def subset(self, which: Any) -> PeriodInputs:
        """Some of the rows."""
        return PeriodInputs(*(part[which] for part in self))


def period_edges(horizon_days: int) -> Ints:
    """The last days of the quarters of the horizon, after 0; a short horizon has fewer of them."""
    return np.unique(np.round(np.linspace(0, horizon_days, N_PERIODS + 1)).astype(np.int64))


def sample_rows(mask: censored_durations.Mask, seed: int) -> Ints:
    """The places of these rows, in their order; of too many, enough."""
    rows = np.flatnonzero(mask)
    if len(rows) > MAX_ROWS:
        rows = np.sort(np.random.default_rng([seed, len(rows)]).choice(rows, MAX_ROWS, replace=False))
    return rows.astype(np.int64)


class PersonPeriods(NamedTuple):
    """One question a row and quarter: did they buy in it, given that they had not before? And where trees begin."""

    row: Ints
    period: Ints
    has_purchase: Floats
    init_score: Floats
    base_log_odds: Floats

    def training_rows(self, inputs: PeriodInputs, edges: Ints) -> boosted_trees.TrainingRows:
        """As trees learn them."""
        return boosted_trees.TrainingRows(
            build_design(inputs, self.row, self.period, edges), self.has_purchase, self.init_score
        )

    def period_outcomes(self, period: int) -> tuple[Floats, Floats]:
        """The rhythm's log odds and the outcomes of one quarter."""
        mask = self.period == period
        return self.base_log_odds[mask], self.has_purchase[mask]


def expand_periods(
    inputs: PeriodInputs, durations: CensoredDurations, edges: Ints, end: np.datetime64
) -> PersonPeriods:
    """Every quarter that was over by the end and in which a purchase could still come.

    Of a quarter that is not over only those would be known who have bought: they would make everybody look eager.
    """
    follow_up_days = durations.follow_up_days[:, None]
    is_complete = censored_durations.has_elapsed(durations.cutoff[:, None], edges[1:], end)
    row, period = np.nonzero(is_complete & (follow_up_days > edges[:-1]))
    has_purchase = (durations.has_purchase[:, None] & (follow_up_days <= edges[1:]))[row, period].astype(np.float64)
    base_log_odds = inputs.base_log_odds[row, period]
    return PersonPeriods(
        row,
        period,
        has_purchase,
        _recalibrated_log_odds(base_log_odds, has_purchase, durations.cutoff[row], period),
        base_log_odds,
    )


def _recalibrated_log_odds(
    base_log_odds: Floats, has_purchase: Floats, cutoff: seasonal_calibration.Timestamps, period: Ints
) -> Floats:
    """The rhythm's log odds brought to the level of their own moment and quarter."""
    init_score = np.empty(len(base_log_odds))
    group = np.unique(cutoff, return_inverse=True)[1] * (N_PERIODS + 1) + period
    for number in np.unique(group):
        mask = group == number
        init_score[mask] = platt_scaling.fit_platt(base_log_odds[mask], has_purchase[mask])(base_log_odds[mask])
    return init_score


def build_inputs(frame: pd.DataFrame, columns: list[str], bgnbd: bg_nbd.BgNbd, edges: Ints) -> PeriodInputs:
    """What is known of these rows by the rhythm of their moment."""
    summary = bg_nbd.purchase_summary(frame)
    features = np.hstack([matrix(frame, columns), survival_features.bgnbd_terms(bgnbd, summary)]).astype(np.float32)
    recency_days = np.nan_to_num(frame[base.RECENCY_COLUMN].to_numpy(dtype=np.float64, na_value=np.nan))
    gaps = matrix(frame, [name for name in GAP_COLUMNS if name in frame.columns])
    return PeriodInputs(
        features, survival_features.log_odds_ahead(bgnbd, summary, edges).astype(np.float64), recency_days, gaps
    )


def build_inputs_by_cutoff(
    frame: pd.DataFrame, columns: list[str], bgnbd_by_cutoff: BgNbdByCutoff, edges: Ints
) -> PeriodInputs:
    """The same by the rhythm of each row's own moment; rows stay in their order."""
    cutoff = censored_durations.read_cutoffs(frame)
    positions = [np.flatnonzero(cutoff == this_cutoff) for this_cutoff in np.unique(cutoff)]
    parts = [build_inputs(frame.iloc[rows], columns, bgnbd_by_cutoff[cutoff[rows[0]]], edges) for rows in positions]
    order = np.argsort(np.concatenate(positions), kind="stable")
    return PeriodInputs(*(np.concatenate(values)[order] for values in zip(*parts, strict=True)))


def build_design(inputs: PeriodInputs, row: Ints, period: Ints | int, edges: Ints) -> Floats32:
    """A customer's features and what they mean for one quarter: the silence by its end, in days and in own gaps."""
    last = np.broadcast_to(edges[1:][period], row.shape)
    recency_days = inputs.recency_days[row] + last
    period_terms = [
        inputs.base_log_odds[row, period],
        last,
        recency_days,
        *(recency_days / np.maximum(gap[row], 1) for gap in inputs.gaps.T),
    ]
    return np.hstack([inputs.features[row], np.column_stack(period_terms).astype(np.float32)])
