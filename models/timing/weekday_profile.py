"""The weekday shares of a customer's purchases."""

from __future__ import annotations

import numpy as np
import pandas as pd

from models.base import WEEKDAY_COLUMN, matrix
from models.btyd import bg_nbd
from models.survival.censored_durations import Floats32, Ints

SHARE_COLUMNS = [f"weekday_{day}_share" for day in range(7)]


def first_weekday(frame: pd.DataFrame) -> Ints:
    """Weekday of the first day ahead, Monday 0: array (n,).

    From column as_of_weekday (the shop's time zone); without it, from as_of in its own time zone.
    """
    weekday = frame[WEEKDAY_COLUMN] if WEEKDAY_COLUMN in frame.columns else frame["as_of"].dt.weekday
    return np.nan_to_num(weekday.to_numpy(dtype=np.float64)).astype(np.int64) % 7


def log_weekday_lift(frame: pd.DataFrame) -> Floats32:
    """Log of the customer's share of visits on each weekday over 1/7: array (n, 7), Monday first.

    One visit on every weekday is added as a prior, so that few visits have little effect.
    """
    if not set(SHARE_COLUMNS) <= set(frame.columns):
        return np.zeros((len(frame), 7), dtype=np.float32)
    visits = bg_nbd.purchase_summary(frame).x[:, None] + 1
    shares = np.nan_to_num(matrix(frame, SHARE_COLUMNS), nan=1 / 7)
    return np.log(7 * (shares * visits + 1) / (visits + 7)).astype(np.float32)
