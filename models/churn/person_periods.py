"""The person-period data of the churn model's discrete-time hazard: one row per customer, cutoff and period."""

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

#: Periods of a horizon, unless it is very short.
N_PERIODS = 4
#: Maximum number of rows (customer and cutoff) to train on.
MAX_ROWS = 60_000
#: The customer's own inter-purchase times that recency is divided by, where the frame has them.
GAP_COLUMNS = ("gap_mean_days", "gap_median_days", "gap_max_days")


class PeriodInputs(NamedTuple):
    """The inputs of each row that do not depend on the period."""

    features: Floats32  # (n, features and BG/NBD terms)
    base_log_odds: Floats  # (n, periods): BG/NBD's, of a purchase in each, given none before
    recency_days: Floats  # (n,): days from the last purchase to as_of
    gaps: Floats  # (n, gap columns)

    def subset(self, which: Any) -> PeriodInputs:
        """The rows selected by a mask or positions."""
        return PeriodInputs(*(part[which] for part in self))


def period_edges(horizon_days: int) -> Ints:
    """Days that bound the periods of the horizon: array (n_periods + 1,), from 0; a short horizon has fewer."""
    return np.unique(np.round(np.linspace(0, horizon_days, N_PERIODS + 1)).astype(np.int64))


def sample_rows(mask: censored_durations.Mask, seed: int) -> Ints:
    """Sorted positions (n,) of the rows in mask, at most MAX_ROWS of them at random."""
    rows = np.flatnonzero(mask)
    if len(rows) > MAX_ROWS:
        rows = np.sort(np.random.default_rng([seed, len(rows)]).choice(rows, MAX_ROWS, replace=False))
    return rows.astype(np.int64)


class PersonPeriods(NamedTuple):
    """One row per customer, cutoff and period at risk: the outcome, and the initial score of the trees.

    `row` is the position in the inputs; `base_log_odds` is BG/NBD's, before recalibration.
    """

    row: Ints
    period: Ints
    has_purchase: Floats
    init_score: Floats
    base_log_odds: Floats

    def training_rows(self, inputs: PeriodInputs, edges: Ints) -> boosted_trees.TrainingRows:
        """The person-periods as rows for boosted trees, one row per person-period."""
        return boosted_trees.TrainingRows(
            build_design(inputs, self.row, self.period, edges), self.has_purchase, self.init_score
        )

    def period_outcomes(self, period: int) -> tuple[Floats, Floats]:
        """BG/NBD's log odds (n,) and the outcomes (n,) of one period."""
        mask = self.period == period
        return self.base_log_odds[mask], self.has_purchase[mask]


def expand_periods(
    inputs: PeriodInputs, durations: CensoredDurations, edges: Ints, end: np.datetime64
) -> PersonPeriods:
    """Every period that had ended by `end` and was entered without a purchase; edges: (n_periods + 1,) days.

    A period that has not ended would contribute only customers with a purchase, and so overstate the hazard.
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
    """BG/NBD's log odds after Platt scaling within their own cutoff and period."""
    init_score = np.empty(len(base_log_odds))
    group = np.unique(cutoff, return_inverse=True)[1] * (N_PERIODS + 1) + period
    for number in np.unique(group):
        mask = group == number
        init_score[mask] = platt_scaling.fit_platt(base_log_odds[mask], has_purchase[mask])(base_log_odds[mask])
    return init_score


def build_inputs(frame: pd.DataFrame, columns: list[str], bgnbd: bg_nbd.BgNbd, edges: Ints) -> PeriodInputs:
    """Inputs of the frame's rows, one row per row, with one BG/NBD fit; edges: (n_periods + 1,) days."""
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
    """Inputs with the BG/NBD fit of each row's own cutoff: one row per row of frame, in its order."""
    cutoff = censored_durations.read_cutoffs(frame)
    positions = [np.flatnonzero(cutoff == this_cutoff) for this_cutoff in np.unique(cutoff)]
    parts = [build_inputs(frame.iloc[rows], columns, bgnbd_by_cutoff[cutoff[rows[0]]], edges) for rows in positions]
    order = np.argsort(np.concatenate(positions), kind="stable")
    return PeriodInputs(*(np.concatenate(values)[order] for values in zip(*parts, strict=True)))


def build_design(inputs: PeriodInputs, row: Ints, period: Ints | int, edges: Ints) -> Floats32:
    """The design matrix (n, columns): a customer's features and period terms, for positions `row` and their periods.

    The period terms are BG/NBD's log odds, the period's last day, and recency by then in days and in the customer's own
    gaps.
    """
    last = np.broadcast_to(edges[1:][period], row.shape)
    recency_days = inputs.recency_days[row] + last
    period_terms = [
        inputs.base_log_odds[row, period],
        last,
        recency_days,
        *(recency_days / np.maximum(gap[row], 1) for gap in inputs.gaps.T),
    ]
    return np.hstack([inputs.features[row], np.column_stack(period_terms).astype(np.float32)])
