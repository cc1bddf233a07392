"""Fates: what became of each row after its moment, as far as anybody has seen by now."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import btyd
from models.base import Floats, TooLittle, require

#: The fewest customers of each fate, quiet and not, that a rate may be learned from.
FEWEST = 30

#: What became of each row: 1 = no purchase within the horizon, 0 = one or more, NaN = not known yet; or a frame with
#: that as `quiet` beside what else is known.
Fate = pd.Series | pd.DataFrame | Floats


def fate(label: Fate) -> Floats:
    """What became of each row as 1, 0 or NaN."""
    if isinstance(label, pd.DataFrame):
        require(label, ["quiet"])
        return label["quiet"].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(label, dtype=np.float64)


def active(frame: pd.DataFrame, horizon_days: int) -> NDArray[np.bool_]:
    """Which rows had a purchase in the last two horizons: whose silence is news."""
    require(frame, [btyd.SILENT])
    return frame[btyd.SILENT].to_numpy(dtype=np.float64, na_value=np.nan) <= 2 * horizon_days


def known_quiet(frame: pd.DataFrame, label: Fate, horizon_days: int) -> tuple[pd.DataFrame, Floats]:
    """The active rows whose outcome is known, with it: 1 = no purchase within the horizon, 0 = at least one.

    Raises TooLittle with fewer than 30 of either.
    """
    quiet = fate(label)
    rows = active(frame, horizon_days) & np.isfinite(quiet)
    fewest = int(min(quiet[rows].sum(), (1 - quiet[rows]).sum()))
    if fewest < FEWEST:
        raise TooLittle(
            f"{int(rows.sum())} active customers have a known outcome after {horizon_days} days, {fewest} of "
            f"the rarer kind; {FEWEST} of each are needed: load a longer history or choose another churn_days"
        )
    return frame[rows], quiet[rows]


def durations(label: pd.DataFrame, days: int) -> tuple[Floats, NDArray[np.bool_]]:
    """How many of these days each row was watched (0 = not at all), and whether a purchase ended it."""
    require(label, ["duration_days", "observed"])
    watched = label["duration_days"].to_numpy(dtype=np.float64, na_value=np.nan)
    bought = label["observed"].to_numpy(dtype=np.float64, na_value=np.nan) == 1
    seen = np.nan_to_num(watched, nan=0.0)
    return np.clip(seen, 0, days), bought & (seen >= 1) & (seen <= days)


def enough_outcomes(label: pd.DataFrame, days: int, *, fewest: int) -> None:
    """Raise TooLittle unless enough next purchases were seen to learn their timing from."""
    seen = int(durations(label, days)[1].sum())
    if seen < fewest:
        raise TooLittle(
            f"{seen} next purchases were seen within {days} days and {fewest} are needed to learn when customers "
            "come back; load a longer history"
        )


def kaplan_meier(label: pd.DataFrame, days: int, *, towards: Floats | None = None, weight: float = 10.0) -> Floats:
    """P(no purchase in the first d days) for d = 1..days, from rows not all of which were watched to the end.

    label: duration_days (1 = on the first day) and observed (0 = still waiting when watching ended).
    `towards` is a curve that counts like `weight` more customers.
    """
    watched, bought = durations(label, days)
    events = np.bincount(watched[bought].astype(int), minlength=days + 1)[1:].astype(float)
    at_risk = np.bincount(watched.astype(int), minlength=days + 1)[::-1].cumsum()[::-1][1:].astype(float)
    if towards is not None:
        before = np.concatenate([[1.0], towards[:-1]])
        events = events + weight * (1 - np.divide(towards, before, out=np.ones(days), where=before > 0))
        at_risk = at_risk + weight
    hazard = np.divide(events, at_risk, out=np.zeros(days), where=at_risk > 0)
    curve: Floats = np.cumprod(1 - hazard)
    return curve
