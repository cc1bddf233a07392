"""Curves that never fall: from how strongly something is expected to how often it came true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class IsotonicCalibration:
    """A rising line through points; flat before the first and behind the last."""

    strengths: Floats
    shares: Floats

    def __call__(self, strength: Floats) -> Floats:
        """The share of times that something this strong came true, between 0 and 1."""
        return np.interp(strength, self.strengths, self.shares)


def fit_isotonic(
    strength: Floats, outcome: NDArray[np.bool_], *, min_group_size: int = 50, group_growth: float = 1.1
) -> IsotonicCalibration:
    """Isotonic regression on groups of like strength: `smallest` at the strong end, larger at the weak one.

    Lists are made of the strongest few, so that is where the groups are fine. A group counts half a
    success and half a failure more than it saw, so nothing is ever certain.
    """
    order = np.argsort(-strength, kind="stable")
    starts = _group_starts(len(order), min_group_size, group_growth)
    sizes = np.diff(np.append(starts, len(order))).astype(np.float64)
    means = np.add.reduceat(strength[order], starts) / sizes
    shares = (np.add.reduceat(outcome[order].astype(np.float64), starts) + 0.5) / (sizes + 1.0)
    rising = isotonic_regression(shares[::-1], weights=sizes[::-1]).x
    return IsotonicCalibration(means[::-1].astype(np.float64), np.asarray(rising, np.float64))


def _group_starts(count: int, min_group_size: int, group_growth: float) -> NDArray[np.int64]:
    starts, size = [0], float(min_group_size)
    while starts[-1] + 2 * size < count:
        starts.append(starts[-1] + int(size))
        size *= group_growth
    return np.array(starts)
