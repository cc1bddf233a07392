"""Qini: what contacting the most persuadable first would gain, against contacting as many by lot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from models.trial import Trial
from training import intervals
from training.intervals import Draws, Floats

#: The share of customers who are called the most persuadable.
FIRST = 1 / 3
#: Points of the curve.
POINTS = np.linspace(0.0, 1.0, 51)


@dataclass(frozen=True)
class Weights:
    """How often each row comes up in each draw: that of its customer, at `place` in counts (draws, customers)."""

    counts: NDArray[np.int32]
    place: NDArray[np.intp]

    def rows(self, which: NDArray[Any]) -> Weights:
        """Of some of the rows, or of all in another order."""
        return Weights(self.counts, self.place[which])

    def sums(self, values: Floats) -> Floats:
        """The weighted sum of a value a row in each draw, (draws,)."""
        return np.asarray(self.counts @ np.bincount(self.place, values, minlength=self.counts.shape[1]), np.float64)


@dataclass(frozen=True)
class Figure:
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
    def spread(self) -> float:
        """The standard error."""
        return float("nan") if self.drawn is None else float(np.nanstd(self.drawn))

    def less(self, other: Figure) -> Figure:
        """The difference of two figures of the same draws."""
        assert self.drawn is not None
        assert other.drawn is not None
        return Figure(self.value - other.value, self.drawn - other.drawn)

    def _bounds(self) -> tuple[float, float]:
        if self.drawn is None:
            return float("nan"), float("nan")
        low, high = intervals.bounds(np.asarray(self.drawn, np.float64)[:, None])
        return float(low[0]), float(high[0])


def weights(drawn: Draws, customers: NDArray[np.int64]) -> Weights:
    """How often each row comes up in each draw; a customer's rows come up together."""
    return Weights(drawn.counts, np.searchsorted(drawn.customers, customers))


def mean(values: Floats, weight: Weights) -> Figure:
    """The mean over all rows."""
    return Figure(float(values.mean()), weight.sums(values) / np.maximum(weight.sums(np.ones(len(values))), 1))


def difference(outcome: Floats, reached: NDArray[np.bool_], weight: Weights) -> Figure:
    """Contacted less others as they are: what a shop would read off, and be misled by where it chose whom."""
    return mean(outcome[reached], weight.rows(reached)).less(mean(outcome[~reached], weight.rows(~reached)))


def order(effect: Floats, mailing: NDArray[np.int64]) -> NDArray[np.intp]:
    """The most persuadable first, each by their place within their own mailing."""
    place = np.zeros(len(effect))
    for one in np.unique(mailing):
        here = mailing == one
        place[here] = rankdata(-effect[here]) / here.sum()
    return np.argsort(place, kind="stable")


def curve(gain: Floats, weight: Weights) -> tuple[dict[str, Figure], pd.DataFrame]:
    """The curve of what contacting the first so many gains each customer of the shop, and what it comes to.

    gain: doubly robust scores, the most persuadable first. `qini` is the area between the curve and the straight
    line of contacting as many by lot (Radcliffe 2007, with the scores of Yadlowsky 2021), `first` what the first
    third gains and `rest` what the others do, a customer. Columns share, gain, low, high.
    """
    once = Weights(np.ones((1, len(gain)), np.int32), np.arange(len(gain)))
    whole, drawn = _cumulative(gain, once), _cumulative(gain, weight)
    figures = {name: Figure(float(of(whole)[0]), of(drawn)) for name, of in _READ.items()}
    low, high = intervals.bounds(drawn)
    return figures, pd.DataFrame({"share": POINTS, "gain": whole[0], "low": low, "high": high})


def within_auc(trial: Trial, chance: Floats, rows: NDArray[np.bool_]) -> float:
    """How well contact could be foretold within a mailing: 0.5 is a lottery, 1 a rule; mean weighted by pairs."""
    areas, pairs = [], []
    for mailing in np.unique(trial.mailing[rows]):
        here = (trial.mailing == mailing) & rows
        reached = trial.contacted[here]
        yes, no = int(reached.sum()), int((~reached).sum())
        if yes and no:
            ranks = rankdata(chance[here])[reached].sum()
            areas.append((ranks - yes * (yes + 1) / 2) / (yes * no))
            pairs.append(yes * no)
    return float(np.average(areas, weights=pairs)) if pairs else float("nan")


def _cumulative(gain: Floats, weight: Weights) -> Floats:
    """Cumulative gain at POINTS, a row a draw; over everybody's weight."""
    curves = np.empty((len(weight.counts), len(POINTS)))
    for row, counts in enumerate(weight.counts):
        each = counts[weight.place]
        reached = np.concatenate([[0.0], np.cumsum(each, dtype=np.float64)])
        gained = np.concatenate([[0.0], np.cumsum(each * gain)])
        curves[row] = np.interp(POINTS * reached[-1], reached, gained) / max(reached[-1], 1.0)
    return curves


def _area(curves: Floats) -> Floats:
    return np.asarray(np.trapezoid(curves, POINTS, axis=1) - curves[:, -1] / 2)


def _at_first(curves: Floats) -> Floats:
    return np.array([np.interp(FIRST, POINTS, each) for each in curves])


_READ: dict[str, Any] = {
    "qini": _area,
    "first": lambda curves: _at_first(curves) / FIRST,
    "rest": lambda curves: (curves[:, -1] - _at_first(curves)) / (1 - FIRST),
}
