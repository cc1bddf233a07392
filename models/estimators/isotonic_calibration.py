"""Isotonic calibration: from the strength of a score to the observed frequency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class IsotonicCalibration:
    """A non-decreasing function, linear between points and constant outside them."""

    strengths: Floats
    shares: Floats

    def __call__(self, strength: Floats) -> Floats:
        """The observed frequency, between 0 and 1, of outcomes with this score: array (n,)."""
        return np.interp(strength, self.strengths, self.shares)


def fit_isotonic(
    strength: Floats, outcome: NDArray[np.bool_], *, min_group_size: int = 50, group_growth: float = 1.1
) -> IsotonicCalibration:
    """Isotonic regression on groups of rows of similar strength: outcome (n,) on strength (n,).

    Groups have `min_group_size` rows at the strong end and grow by `group_growth` towards the weak end, since lists are
    made of the strongest few. Each group gets half a success and half a failure more than observed, so that no
    frequency is 0 or 1.
    """
    from scipy.optimize import isotonic_regression  # imported here: a server never fits

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
