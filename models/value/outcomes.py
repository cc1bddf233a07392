"""Spend within the horizon as a label, for the value model and its baselines."""

from __future__ import annotations

import numpy as np
import pandas as pd

from models.base import Floats, InsufficientData, require_columns

MIN_BUYERS = 30
#: What was spent over the whole horizon (NaN = not known yet); or spent, and the days over which, as columns.
SpendLabel = pd.DataFrame | pd.Series | Floats


def read_spend(label: SpendLabel, horizon_days: int) -> tuple[Floats, Floats]:
    """What each row's customer spent, and over how many days: a frame's spent and days, or the whole horizon's.

    Of an array, NaN = not known yet, and no day of it is.
    """
    if isinstance(label, pd.DataFrame):
        require_columns(label, ["spent", "days"])
        spent, days = (label[name].to_numpy(np.float64, na_value=np.nan) for name in ("spent", "days"))
        return np.where(days > 0, spent, np.nan), np.nan_to_num(days)
    values = np.asarray(label, dtype=np.float64)
    return values, np.where(np.isfinite(values), float(horizon_days), 0.0)


def full_horizon_spend(label: SpendLabel, horizon_days: int) -> Floats:
    """What was spent over the whole horizon; NaN where it is not over."""
    spent, days = read_spend(label, horizon_days)
    return np.where(days >= horizon_days, spent, np.nan)


def select_labelled_spend(frame: pd.DataFrame, label: SpendLabel, horizon_days: int) -> tuple[pd.DataFrame, Floats]:
    """The rows whose outcome is known, with it. Raises TooLittle with fewer than 30 who spent anything."""
    spent = full_horizon_spend(label, horizon_days)
    rows = np.isfinite(spent)
    buyers = int((spent[rows] > 0).sum())
    if buyers < MIN_BUYERS:
        raise InsufficientData(
            f"{buyers} customers were seen spending over {horizon_days} days and {MIN_BUYERS} are needed; "
            "load a longer history or choose a smaller value_days"
        )
    return frame[rows], spent[rows]
