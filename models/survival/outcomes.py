"""Fates: what became of each row after its moment, as far as anybody has seen by now."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import base
from models.base import Floats, InsufficientData, require_columns

#: The fewest customers of each fate, quiet and not, that a rate may be learned from.
MIN_OUTCOMES = 30

#: What became of each row: 1 = no purchase within the horizon, 0 = one or more, NaN = not known yet; or a frame with
#: that as `quiet` beside what else is known.
ChurnLabel = pd.Series | pd.DataFrame | Floats


def read_churned(label: ChurnLabel) -> Floats:
    """What became of each row as 1, 0 or NaN."""
    if isinstance(label, pd.DataFrame):
        require_columns(label, ["quiet"])
        return label["quiet"].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(label, dtype=np.float64)


def is_active(frame: pd.DataFrame, horizon_days: int) -> NDArray[np.bool_]:
    """Which rows had a purchase in the last two horizons: whose silence is news."""
    require_columns(frame, [base.RECENCY_COLUMN])
    return frame[base.RECENCY_COLUMN].to_numpy(dtype=np.float64, na_value=np.nan) <= 2 * horizon_days


def select_labelled(frame: pd.DataFrame, label: ChurnLabel, horizon_days: int) -> tuple[pd.DataFrame, Floats]:
    """The active rows whose outcome is known, with it: 1 = no purchase within the horizon, 0 = at least one.

    Raises TooLittle with fewer than 30 of either.
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
