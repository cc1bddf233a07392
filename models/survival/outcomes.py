"""Churn outcomes after a cutoff, as far as they are known, and which customers were active at it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import base
from models.base import Floats, InsufficientData, require_columns

#: Minimum number of customers with each outcome, from which a rate may be estimated.
MIN_OUTCOMES = 30
#: A customer is active whose last purchase is at most this many horizons ago.
ACTIVE_HORIZONS = 2

#: The outcome of each row: 1 = no purchase within the horizon, 0 = at least one, NaN = not known yet; or a frame with
#: that in column churned, beside other label columns.
ChurnLabel = pd.Series | pd.DataFrame | Floats


def read_churned(label: ChurnLabel) -> Floats:
    """The outcome of each row as 1, 0 or NaN: array (n,)."""
    if isinstance(label, pd.DataFrame):
        require_columns(label, ["churned"])
        return label["churned"].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(label, dtype=np.float64)


def is_active(frame: pd.DataFrame, horizon_days: int) -> NDArray[np.bool_]:
    """Which rows had a purchase in the last ACTIVE_HORIZONS horizons, from column recency_days: array (n,)."""
    require_columns(frame, [base.RECENCY_COLUMN])
    recency_days = frame[base.RECENCY_COLUMN].to_numpy(dtype=np.float64, na_value=np.nan)
    return recency_days <= ACTIVE_HORIZONS * horizon_days


def select_labelled(frame: pd.DataFrame, label: ChurnLabel, horizon_days: int) -> tuple[pd.DataFrame, Floats]:
    """The active rows whose outcome is known, and it (n,): 1 = no purchase within the horizon, 0 = at least one.

    Raises InsufficientData with fewer than 30 rows of either outcome.
    """
    churned = read_churned(label)
    rows = is_active(frame, horizon_days) & np.isfinite(churned)
    rarer_count = int(min(churned[rows].sum(), (1 - churned[rows]).sum()))
    if rarer_count < MIN_OUTCOMES:
        raise InsufficientData(
            f"{int(rows.sum())} active customers have a known outcome after {horizon_days} days, {rarer_count} of "
            f"the rarer kind; {MIN_OUTCOMES} of each are needed: load a longer history or choose another churn_days"
        )
    return frame[rows], churned[rows]
