"""The Kaplan-Meier estimator of a survival curve."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.base import Floats, InsufficientData, require_columns


def read_durations(label: pd.DataFrame, days: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Follow-up of each row in days within `days` (n,), 0 = none, and whether a purchase ended it (n,).

    label: columns duration_days and observed.
    """
    require_columns(label, ["duration_days", "observed"])
    follow_up_days = label["duration_days"].to_numpy(dtype=np.float64, na_value=np.nan)
    is_observed = label["observed"].to_numpy(dtype=np.float64, na_value=np.nan) == 1
    whole_days = np.nan_to_num(follow_up_days, nan=0.0)
    return np.clip(whole_days, 0, days), is_observed & (whole_days >= 1) & (whole_days <= days)


def require_purchases(label: pd.DataFrame, days: int, *, min_purchases: int) -> None:
    """Check that the label has enough next purchases to learn their timing, from columns duration_days and observed.

    Raises InsufficientData if there are fewer than min_purchases.
    """
    purchases = int(read_durations(label, days)[1].sum())
    if purchases < min_purchases:
        raise InsufficientData(
            f"{purchases} next purchases were observed within {days} days and {min_purchases} are needed to learn when "
            "customers come back; load a longer history"
        )


def survival_curve(
    label: pd.DataFrame, days: int, *, prior_curve: Floats | None = None, prior_weight: float = 10.0
) -> Floats:
    """P(no purchase in the first d days) for d = 1..days: array (n_days,), from right-censored rows.

    label: columns duration_days (1 = a purchase on the first day) and observed (0 = censored).
    prior_curve: a curve (n_days,) that counts like prior_weight additional customers.
    """
    follow_up_days, has_purchase = read_durations(label, days)
    events = np.bincount(follow_up_days[has_purchase].astype(int), minlength=days + 1)[1:].astype(float)
    at_risk = np.bincount(follow_up_days.astype(int), minlength=days + 1)[::-1].cumsum()[::-1][1:].astype(float)
    if prior_curve is not None:
        before = np.concatenate([[1.0], prior_curve[:-1]])
        events = events + prior_weight * (1 - np.divide(prior_curve, before, out=np.ones(days), where=before > 0))
        at_risk = at_risk + prior_weight
    hazard = np.divide(events, at_risk, out=np.zeros(days), where=at_risk > 0)
    curve: Floats = np.cumprod(1 - hazard)
    return curve
