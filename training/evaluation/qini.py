"""Qini curve: the gain of contacting the customers with the highest predicted effect first, over a random choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from models.uplift.treatment_data import TreatmentData
from training.evaluation import bootstrap
from training.evaluation.bootstrap import BootstrapDraws, Floats

#: Share of customers in the group with the highest predicted effect.
TARGET_SHARE = 1 / 3
#: Points of the curve.
CURVE_SHARES = np.linspace(0.0, 1.0, 51)


@dataclass(frozen=True)
class DrawWeights:
    """How often each row occurs in each draw: as often as its customer.

    `counts` is (n_draws, n_customers), `position` (n_rows,) the column of each row's customer.
    """

    counts: NDArray[np.int32]
    position: NDArray[np.intp]

    def select_rows(self, rows: NDArray[Any]) -> DrawWeights:
        """The weights of some rows, (n_selected,) indices or a mask (n_rows,), or of all in another order."""
        return DrawWeights(self.counts, self.position[rows])

    def sums(self, values: Floats) -> Floats:
        """Weighted sum of values (n_rows,) in each draw, (n_draws,)."""
        return np.asarray(self.counts @ np.bincount(self.position, values, minlength=self.counts.shape[1]), np.float64)


@dataclass(frozen=True)
class BootstrapEstimate:
    """A metric, and its values in the bootstrap draws, (n_draws,); None without draws."""

    value: float
    drawn: Floats | None = None

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self._bounds()[0]

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self._bounds()[1]

    @property
    def standard_error(self) -> float:
        """Standard deviation over the draws; NaN without draws."""
        return float("nan") if self.drawn is None else float(np.nanstd(self.drawn))

    def minus(self, other: BootstrapEstimate) -> BootstrapEstimate:
        """The difference of two metrics of the same draws."""
        assert self.drawn is not None
        assert other.drawn is not None
        return BootstrapEstimate(self.value - other.value, self.drawn - other.drawn)

    def _bounds(self) -> tuple[float, float]:
        if self.drawn is None:
            return float("nan"), float("nan")
        low, high = bootstrap.percentile_interval(np.asarray(self.drawn, np.float64)[:, None])
        return float(low[0]), float(high[0])


def draw_weights(draws: BootstrapDraws, customers: NDArray[np.int64]) -> DrawWeights:
    """How often each row occurs in each draw; customers: (n_rows,), and a customer's rows are drawn together."""
    return DrawWeights(draws.counts, np.searchsorted(draws.customers, customers))


def weighted_mean(values: Floats, weight: DrawWeights) -> BootstrapEstimate:
    """The mean of values (n_rows,)."""
    return BootstrapEstimate(
        float(values.mean()), weight.sums(values) / np.maximum(weight.sums(np.ones(len(values))), 1)
    )


def mean_difference(outcome: Floats, is_contacted: NDArray[np.bool_], weight: DrawWeights) -> BootstrapEstimate:
    """Mean outcome of contacted rows less that of the others, without any adjustment.

    outcome, is_contacted: (n_rows,). It misleads wherever the shop chose whom to contact.
    """
    return weighted_mean(outcome[is_contacted], weight.select_rows(is_contacted)).minus(
        weighted_mean(outcome[~is_contacted], weight.select_rows(~is_contacted))
    )


def order_by_effect(effect: Floats, mailing: NDArray[np.int64]) -> NDArray[np.intp]:
    """Row indices (n,) by falling effect (n,), each row ranked within its own mailing (n,)."""
    rank = np.zeros(len(effect))
    for one_mailing in np.unique(mailing):
        is_in_mailing = mailing == one_mailing
        rank[is_in_mailing] = rankdata(-effect[is_in_mailing]) / is_in_mailing.sum()
    return np.argsort(rank, kind="stable")


def qini_curve(gain: Floats, weight: DrawWeights) -> tuple[dict[str, BootstrapEstimate], pd.DataFrame]:
    """Cumulative gain per customer of contacting the first rows: columns share, gain, low, high; and its summaries.

    gain: doubly robust scores (n_rows,), by falling predicted effect. `qini` is the area between the curve and the
    straight line of a random choice (Radcliffe 2007, with the scores of Yadlowsky 2021), `first` the gain per customer
    in the first third, `rest` that in the others.
    """
    unit_weights = DrawWeights(np.ones((1, len(gain)), np.int32), np.arange(len(gain)))
    observed_curve, drawn = _cumulative_gains(gain, unit_weights), _cumulative_gains(gain, weight)
    estimates = {
        name: BootstrapEstimate(float(summarise(observed_curve)[0]), summarise(drawn))
        for name, summarise in _CURVE_SUMMARIES.items()
    }
    low, high = bootstrap.percentile_interval(drawn)
    return estimates, pd.DataFrame({"share": CURVE_SHARES, "gain": observed_curve[0], "low": low, "high": high})


def within_mailing_auc(treatment_data: TreatmentData, propensity: Floats, rows: NDArray[np.bool_]) -> float:
    """How well contact is predicted within a mailing: 0.5 for random contact, 1 for a rule; mean weighted by pairs.

    propensity: P(contacted), (n_rows,). rows: mask (n_rows,) of the rows to use.
    """
    areas, pairs = [], []
    for mailing in np.unique(treatment_data.mailing[rows]):
        is_included = (treatment_data.mailing == mailing) & rows
        is_contacted = treatment_data.contacted[is_included]
        n_contacted, n_others = int(is_contacted.sum()), int((~is_contacted).sum())
        if n_contacted and n_others:
            ranks = rankdata(propensity[is_included])[is_contacted].sum()
            areas.append((ranks - n_contacted * (n_contacted + 1) / 2) / (n_contacted * n_others))
            pairs.append(n_contacted * n_others)
    return float(np.average(areas, weights=pairs)) if pairs else float("nan")


def _cumulative_gains(gain: Floats, weight: DrawWeights) -> Floats:
    """Cumulative gain at CURVE_SHARES, (n_draws, n_shares), divided by the total weight."""
    curves = np.empty((len(weight.counts), len(CURVE_SHARES)))
    for row, counts in enumerate(weight.counts):
        each = counts[weight.position]
        cumulative_weight = np.concatenate([[0.0], np.cumsum(each, dtype=np.float64)])
        cumulative_gain = np.concatenate([[0.0], np.cumsum(each * gain)])
        curves[row] = np.interp(CURVE_SHARES * cumulative_weight[-1], cumulative_weight, cumulative_gain) / max(
            cumulative_weight[-1], 1.0
        )
    return curves


def _qini_area(curves: Floats) -> Floats:
    return np.asarray(np.trapezoid(curves, CURVE_SHARES, axis=1) - curves[:, -1] / 2)


def _gain_at_target(curves: Floats) -> Floats:
    return np.array([np.interp(TARGET_SHARE, CURVE_SHARES, each) for each in curves])


_CURVE_SUMMARIES: dict[str, Any] = {
    "qini": _qini_area,
    "first": lambda curves: _gain_at_target(curves) / TARGET_SHARE,
    "rest": lambda curves: (curves[:, -1] - _gain_at_target(curves)) / (1 - TARGET_SHARE),
}
