"""BG/NBD per customer and category, the rows it applies to, and the replenishment label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import base
from models.base import Floats, require_columns
from models.btyd import bg_nbd

#: The columns read here; a frame has one row per customer, cutoff and category.
NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN, NEED_FIRST_COLUMN = "need_times", "need_recency_days", "need_first_days"
#: Prediction horizons: one column of the predictions each, non-decreasing.
HORIZONS_DAYS = (7, 14, 28)
#: Replenishment: bought on at least this many days, the last of them at most a season ago.
MIN_PURCHASES, MAX_RECENCY_DAYS = 3, 120
#: Maximum number of rows to fit on: enough for four parameters.
MAX_PAIRS = 20_000


def purchase_summary(frame: pd.DataFrame) -> bg_nbd.PurchaseSummary:
    """Purchase history of each row (customer and category): columns need_times, need_recency_days, need_first_days.

    A first purchase one day ago was yesterday, the last observed day.
    """
    require_columns(frame, [NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN, NEED_FIRST_COLUMN])
    times, recency_days, first_days = (
        np.maximum(np.nan_to_num(frame[name].to_numpy(np.float64, na_value=np.nan), posinf=0.0), 0.0)
        for name in (NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN, NEED_FIRST_COLUMN)
    )
    span = np.maximum(first_days - recency_days, 0.0)
    return bg_nbd.PurchaseSummary(np.maximum(times - 1, 0.0), span, np.maximum(first_days - 1, span))


def is_replenishment(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows are replenishment: bought on at least 3 days, the last within 120 days; array (n,).

    A category bought once, or long ago, does not run out.
    """
    require_columns(frame, [NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN])
    times, recency_days = (
        frame[name].to_numpy(np.float64, na_value=np.nan) for name in (NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN)
    )
    return (times >= MIN_PURCHASES) & (recency_days <= MAX_RECENCY_DAYS)


def latest_pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the latest cutoff, with the columns that purchase_summary reads."""
    require_columns(frame, ["as_of", NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN, NEED_FIRST_COLUMN])
    return base.latest_rows(frame[["as_of", NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN, NEED_FIRST_COLUMN]])


def fit_bgnbd(frame: pd.DataFrame, *, seed: int = 0) -> bg_nbd.BgNbd:
    """Fit BG/NBD to a frame of one cutoff, one row per customer and category; at most MAX_PAIRS rows at random."""
    summary = purchase_summary(frame)
    if len(summary.x) > MAX_PAIRS:
        sampled = np.random.default_rng(seed).choice(len(summary.x), MAX_PAIRS, replace=False)
        summary = bg_nbd.PurchaseSummary(*(part[sampled] for part in summary))
    return bg_nbd.BgNbd.fit(*summary)


def purchase_probability(bgnbd: bg_nbd.BgNbd, summary: bg_nbd.PurchaseSummary, days: float | Floats) -> Floats:
    """P(bought again within these days | purchase history), clipped away from 0 and 1: array (n,)."""
    return np.clip(1 - bgnbd.p_no_purchase(*summary, days), bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY)


def read_outcomes(label: pd.DataFrame) -> Floats:
    """Columns within_7, within_14 and within_28 as an array (n, 3): 1, 0, or NaN = not known yet."""
    require_columns(label, [f"within_{days}" for days in HORIZONS_DAYS])
    return label[[f"within_{days}" for days in HORIZONS_DAYS]].to_numpy(np.float64, na_value=np.nan)


def mean_outcomes(label: pd.DataFrame, predicted: Floats) -> list[float]:
    """Share of rows bought again within each horizon; the mean of predicted (n, 3) where no outcome is known."""
    observed = read_outcomes(label)
    counts = np.isfinite(observed).sum(axis=0)
    shares = np.nansum(observed, axis=0) / np.maximum(counts, 1)
    means = predicted.mean(axis=0) if len(predicted) else np.zeros(len(HORIZONS_DAYS))
    non_decreasing: Floats = np.maximum.accumulate(np.where(counts > 0, shares, means))
    return [float(share) for share in non_decreasing]


def purchase_probabilities(
    bgnbd: bg_nbd.BgNbd, summary: bg_nbd.PurchaseSummary, horizons_days: Sequence[int] = HORIZONS_DAYS
) -> Floats:
    """P(bought again within each horizon): array (n, n_horizons)."""
    return np.column_stack(
        [purchase_probability(bgnbd, summary, float(horizon_days)) for horizon_days in horizons_days]
    )
