"""Spend within the horizon as a label, for the value model and its baselines."""

from __future__ import annotations

import numpy as np
import pandas as pd

from models.base import Floats, InsufficientData, require_columns

MIN_BUYERS = 30
#: Spend over the whole horizon, NaN = not known yet; or a frame with columns spent and days.
SpendLabel = pd.DataFrame | pd.Series | Floats


def read_spend(label: SpendLabel, horizon_days: int) -> tuple[Floats, Floats]:
    """Spend (n,) and days of observation (n,), from columns spent and days, or from spend over the whole horizon.

    In an array NaN = not known yet, with 0 days observed.
    """
    if isinstance(label, pd.DataFrame):
        require_columns(label, ["spent", "days"])
        spent, days = (label[name].to_numpy(np.float64, na_value=np.nan) for name in ("spent", "days"))
        return np.where(days > 0, spent, np.nan), np.nan_to_num(days)
    values = np.asarray(label, dtype=np.float64)
    return values, np.where(np.isfinite(values), float(horizon_days), 0.0)


def full_horizon_spend(label: SpendLabel, horizon_days: int) -> Floats:
    """Spend over the whole horizon (n,); NaN where the horizon is not over."""
    spent, days = read_spend(label, horizon_days)
    return np.where(days >= horizon_days, spent, np.nan)


def select_labelled_spend(frame: pd.DataFrame, label: SpendLabel, horizon_days: int) -> tuple[pd.DataFrame, Floats]:
    """The rows with a known outcome, and their spend (n,).

    Raises InsufficientData if fewer than 30 of them spent anything.
    """
    spent = full_horizon_spend(label, horizon_days)
    rows = np.isfinite(spent)
    buyers = int((spent[rows] > 0).sum())
    if buyers < MIN_BUYERS:
        raise InsufficientData(
            f"{buyers} customers were seen spending over {horizon_days} days and {MIN_BUYERS} are needed; "
            "load a longer history or choose a smaller value_days"
        )
    return frame[rows], spent[rows]
