"""Qini: what contacting the most persuadable first would gain, against contacting as many by lot."""

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

#: The share of customers who are called the most persuadable.
TARGET_SHARE = 1 / 3
#: Points of the curve.
CURVE_SHARES = np.linspace(0.0, 1.0, 51)


@dataclass(frozen=True)
class DrawWeights:
    """How often each row comes up in each draw: that of its customer, at `place` in counts (draws, customers)."""

    counts: NDArray[np.int32]
    position: NDArray[np.intp]

    def select_rows(self, rows: NDArray[Any]) -> DrawWeights:
        """Of some of the rows, or of all in another order."""
        return DrawWeights(self.counts, self.position[rows])

    def sums(self, values: Floats) -> Floats:
        """The weighted sum of a value a row in each draw, (draws,)."""
        return np.asarray(self.counts @ np.bincount(self.position, values, minlength=self.counts.shape[1]), np.float64)


@dataclass(frozen=True)
class BootstrapEstimate:
    """A figure, and what it would have been with other customers like these; no draws where nobody asked."""

    value: float
    drawn: Floats | None = None

    @property
    def low(self) -> float:
        return self._bounds()[0]

    @property
    def high(self) -> float:
        return self._bounds()[1]

    @property
    def standard_error(self) -> float:
        """The standard error."""
        return float("nan") if self.drawn is None else float(np.nanstd(self.drawn))

    def minus(self, other: BootstrapEstimate) -> BootstrapEstimate:
        """The difference of two figures of the same draws."""
        assert self.drawn is not None
        assert other.drawn is not None
        return BootstrapEstimate(self.value - other.value, self.drawn - other.drawn)

    def _bounds(self) -> tuple[float, float]:
        if self.drawn is None:
            return float("nan"), float("nan")
        low, high = bootstrap.percentile_interval(np.asarray(self.drawn, np.float64)[:, None])
        return float(low[0]), float(high[0])


def draw_weights(draws: BootstrapDraws, customers: NDArray[np.int64]) -> DrawWeights:
    """How often each row comes up in each draw; a customer's rows come up together."""
    return DrawWeights(draws.counts, np.searchsorted(draws.customers, customers))


def weighted_mean(values: Floats, weight: DrawWeights) -> BootstrapEstimate:
    """The mean over all rows."""
    return BootstrapEstimate(
        float(values.mean()), weight.sums(values) / np.maximum(weight.sums(np.ones(len(values))), 1)
    )


def mean_difference(outcome: Floats, is_contacted: NDArray[np.bool_], weight: DrawWeights) -> BootstrapEstimate:
    """Contacted less others as they are: what a shop would read off, and be misled by where it chose whom."""
    return weighted_mean(outcome[is_contacted], weight.select_rows(is_contacted)).minus(
        weighted_mean(outcome[~is_contacted], weight.select_rows(~is_contacted))
    )


def order_by_effect(effect: Floats, mailing: NDArray[np.int64]) -> NDArray[np.intp]:
    """The most persuadable first, each by their place within their own mailing."""
    rank = np.zeros(len(effect))
    for each in np.unique(mailing):
        here = mailing == each
        rank[here] = rankdata(-effect[here]) / here.sum()
    return np.argsort(rank, kind="stable")


def qini_curve(gain: Floats, weight: DrawWeights) -> tuple[dict[str, BootstrapEstimate], pd.DataFrame]:
    """The curve of what contacting the first so many gains each customer of the shop, and what it comes to.

    gain: doubly robust scores, the most persuadable first. `qini` is the area between the curve and the straight
    line of contacting as many by lot (Radcliffe 2007, with the scores of Yadlowsky 2021), `first` what the first
    third gains and `rest` what the others do, a customer. Columns share, gain, low, high.
    """
    unit_weights = DrawWeights(np.ones((1, len(gain)), np.int32), np.arange(len(gain)))
    whole, drawn = _cumulative_gains(gain, unit_weights), _cumulative_gains(gain, weight)
    estimates = {
        name: BootstrapEstimate(float(summarise(whole)[0]), summarise(drawn))
        for name, summarise in _CURVE_SUMMARIES.items()
    }
    low, high = bootstrap.percentile_interval(drawn)
    return estimates, pd.DataFrame({"share": CURVE_SHARES, "gain": whole[0], "low": low, "high": high})


def within_mailing_auc(treatment_data: TreatmentData, propensity: Floats, rows: NDArray[np.bool_]) -> float:
    """How well contact could be foretold within a mailing: 0.5 is a lottery, 1 a rule; mean weighted by pairs."""
    areas, pairs = [], []
    for mailing in np.unique(treatment_data.mailing[rows]):
        is_included = (treatment_data.mailing == mailing) & rows
        is_contacted = treatment_data.contacted[is_included]
        yes, no = int(is_contacted.sum()), int((~is_contacted).sum())
        if yes and no:
            ranks = rankdata(propensity[is_included])[is_contacted].sum()
            areas.append((ranks - yes * (yes + 1) / 2) / (yes * no))
            pairs.append(yes * no)
    return float(np.average(areas, weights=pairs)) if pairs else float("nan")


def _cumulative_gains(gain: Floats, weight: DrawWeights) -> Floats:
    """Cumulative gain at POINTS, a row a draw; over everybody's weight."""
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
