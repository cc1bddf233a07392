"""The weekday shares of a customer's purchases."""

from __future__ import annotations

import numpy as np
import pandas as pd

from models.base import WEEKDAY_COLUMN, matrix
from models.btyd import bg_nbd
from models.survival.censored_durations import Floats32, Ints

SHARE_COLUMNS = [f"weekday_{day}_share" for day in range(7)]


def first_weekday(frame: pd.DataFrame) -> Ints:
    """The weekday of the first day ahead in the shop's zone; without the feature, as the clock of as_of says."""
    weekday = frame[WEEKDAY_COLUMN] if WEEKDAY_COLUMN in frame.columns else frame["as_of"].dt.weekday
    return np.nan_to_num(weekday.to_numpy(dtype=np.float64)).astype(np.int64) % 7


def log_weekday_lift(frame: pd.DataFrame) -> Floats32:
    """Log of how much oftener than one in seven the customer came on each weekday: array (rows, 7), Monday first.

    A visit on every weekday is added, so that few visits say little.
    """
    if not set(SHARE_COLUMNS) <= set(frame.columns):
        return np.zeros((len(frame), 7), dtype=np.float32)
    visits = bg_nbd.purchase_summary(frame).x[:, None] + 1
    shares = np.nan_to_num(matrix(frame, SHARE_COLUMNS), nan=1 / 7)
    return np.log(7 * (shares * visits + 1) / (visits + 7)).astype(np.float32)
