"""Stocks: the plain rules of when a customer runs out of something, from how often they have bought it so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import base
from models.base import Floats, require_columns
from models.btyd import bg_nbd

#: A frame of needs has one row for a customer, a moment and a category, with these numbers among others.
NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN, NEED_FIRST_COLUMN = "need_times", "need_recency_days", "need_first_days"
#: How far ahead a need is foretold: a column of the answer each, never falling.
HORIZONS_DAYS = (7, 14, 28)
#: A need is what was bought on so many days, the last of them not longer ago than a season.
MIN_PURCHASES, MAX_RECENCY_DAYS = 3, 120
#: So many rows say all there is to say about four parameters.
MAX_PAIRS = 20_000


def purchase_summary(frame: pd.DataFrame) -> bg_nbd.PurchaseSummary:
    """Each need's past in three numbers: times bought after the first, days from first to last, days from first to now.

    A first purchase one day ago was yesterday, the last day that was seen.
    """
    require_columns(frame, [NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN, NEED_FIRST_COLUMN])
    times, recency_days, first_days = (
        np.maximum(np.nan_to_num(frame[name].to_numpy(np.float64, na_value=np.nan), posinf=0.0), 0.0)
        for name in (NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN, NEED_FIRST_COLUMN)
    )
    span = np.maximum(first_days - recency_days, 0.0)
    return bg_nbd.PurchaseSummary(np.maximum(times - 1, 0.0), span, np.maximum(first_days - 1, span))


def is_replenishment(frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows are needs at all: what was bought once or long ago does not run out."""
    require_columns(frame, [NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN])
    times, recency_days = (
        frame[name].to_numpy(np.float64, na_value=np.nan) for name in (NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN)
    )
    return (times >= MIN_PURCHASES) & (recency_days <= MAX_RECENCY_DAYS)


def latest_pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """The needs of the frame's last moment, with what their history is read from."""
    require_columns(frame, ["as_of", NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN, NEED_FIRST_COLUMN])
    return base.latest_rows(frame[["as_of", NEED_TIMES_COLUMN, NEED_RECENCY_COLUMN, NEED_FIRST_COLUMN]])


def fit_bgnbd(frame: pd.DataFrame, *, seed: int = 0) -> bg_nbd.BgNbd:
    """BG/NBD over the needs of a frame of one moment; a sample, where there are many."""
    summary = purchase_summary(frame)
    if len(summary.x) > MAX_PAIRS:
        sampled = np.random.default_rng(seed).choice(len(summary.x), MAX_PAIRS, replace=False)
        summary = bg_nbd.PurchaseSummary(*(part[sampled] for part in summary))
    return bg_nbd.BgNbd.fit(*summary)


def purchase_probability(bgnbd: bg_nbd.BgNbd, summary: bg_nbd.PurchaseSummary, days: float | Floats) -> Floats:
    """P(bought again within these days | past), kept off certainty."""
    return np.clip(1 - bgnbd.p_no_purchase(*summary, days), bg_nbd.MIN_PROBABILITY, 1 - bg_nbd.MIN_PROBABILITY)


def read_outcomes(label: pd.DataFrame) -> Floats:
    """The label's columns within_7, within_14 and within_28 as an array (rows, 3): 1, 0, or NaN for not known yet."""
    require_columns(label, [f"within_{days}" for days in HORIZONS_DAYS])
    return label[[f"within_{days}" for days in HORIZONS_DAYS]].to_numpy(np.float64, na_value=np.nan)


def mean_outcomes(label: pd.DataFrame, predicted: Floats) -> list[float]:
    """The share of needs that came up within each span; what was expected, where nobody knows yet."""
    observed = read_outcomes(label)
    counts = np.isfinite(observed).sum(axis=0)
    shares = np.nansum(observed, axis=0) / np.maximum(counts, 1)
    means = predicted.mean(axis=0) if len(predicted) else np.zeros(len(HORIZONS_DAYS))
    non_decreasing: Floats = np.maximum.accumulate(np.where(counts > 0, shares, means))
    return [float(share) for share in non_decreasing]


def purchase_probabilities(
    bgnbd: bg_nbd.BgNbd, summary: bg_nbd.PurchaseSummary, horizons_days: Sequence[int] = HORIZONS_DAYS
) -> Floats:
    """P(bought again within each of these spans): array (rows, spans)."""
    return np.column_stack(
        [purchase_probability(bgnbd, summary, float(horizon_days)) for horizon_days in horizons_days]
    )
