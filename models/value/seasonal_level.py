"""The seasonal index of spend: actual over expected spend at the same time last year.

The expectation of a year ago, fitted on what was known then, is compared with the spend that followed; the same ratio
is applied now. On Online Retail II that changes the total before Christmas from 35 % too low to within a few percent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from models.base import MIN_HORIZONS, YEAR_DAYS, YEAR_TOLERANCE_DAYS, Floats

#: Largest seasonal index, and the reciprocal of the smallest.
MAX_RATIO = 3.0


@dataclass(frozen=True, slots=True)
class CutoffRatio:
    """At one cutoff: its distance from a year ago in days, log(actual / expected), and the standard error of it."""

    days: float
    log_ratio: float
    error: float


def seasonal_index(
    frame: pd.DataFrame, spent: Floats, horizon_days: int, expected: Callable[[pd.DataFrame], Floats]
) -> float:
    """Actual over expected spend a year before the latest cutoff in column as_of; 1 if not known.

    spent: (n,): spend over the whole horizon, NaN = not known yet.
    expected: the expected spend of the rows of one cutoff, fitted on what was known at it.

    The ratio is shrunk towards 1 according to its standard error.
    """
    candidates = [
        _cutoff_ratio(frame[rows], spent[rows], days, expected)
        for days, rows in _cutoffs_near_last_year(frame, spent, horizon_days)
    ]
    ratios = [ratio for ratio in candidates if ratio is not None]
    if not ratios:
        return 1.0
    closeness = np.array([1 / (abs(ratio.days) + 1.0) for ratio in ratios])
    shares = closeness / closeness.sum()
    log_ratio = float(shares @ [ratio.log_ratio for ratio in ratios])
    error = float(shares @ [ratio.error for ratio in ratios])
    shrinkage = max(0.0, 1 - (error / log_ratio) ** 2) if log_ratio else 0.0
    return float(np.exp(np.clip(shrinkage * log_ratio, -np.log(MAX_RATIO), np.log(MAX_RATIO))))


def _cutoffs_near_last_year(frame: pd.DataFrame, spent: Floats, horizon_days: int) -> list[tuple[float, np.ndarray]]:
    """The nearest cutoffs before and after a year ago, or the one of that day, with all outcomes known.

    Days from it, and a mask (n,) of the rows.
    """
    cutoff = pd.to_datetime(frame["as_of"], utc=True, cache=False).to_numpy(dtype="datetime64[us]")
    tenure_days = frame["tenure_days"].to_numpy(np.float64, na_value=np.nan)
    matches = []
    for this_cutoff in np.unique(cutoff):
        rows = cutoff == this_cutoff
        days = (this_cutoff - cutoff.max()) / np.timedelta64(1, "D") + YEAR_DAYS
        has_history = np.nanmax(np.append(tenure_days[rows], 0.0)) >= MIN_HORIZONS * horizon_days
        if abs(days) <= YEAR_TOLERANCE_DAYS and has_history and np.isfinite(spent[rows]).all():
            matches.append((float(days), rows))
    before = [match for match in matches if match[0] <= 0.5][-1:]
    after = [match for match in matches if match[0] > 0.5][:1]
    return before if before and before[0][0] > -0.5 else before + after


def _cutoff_ratio(
    rows: pd.DataFrame, spent: Floats, days: float, expected: Callable[[pd.DataFrame], Floats]
) -> CutoffRatio | None:
    predicted = expected(rows)
    actual, total = float(np.maximum(spent, 0.0).sum()), float(predicted.sum())
    if actual <= 0 or total <= 0:
        return None
    residual = np.maximum(spent, 0.0) - actual / total * predicted
    return CutoffRatio(days, float(np.log(actual / total)), float(np.sqrt((residual**2).sum())) / actual)
