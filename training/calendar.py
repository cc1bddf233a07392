"""The training calendar: the local days of a shop, and cutoffs among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.base import YEAR_DAYS

DayNumbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrainingCalendar:
    """The shop's local days around a run, from its first sale to the run's as_of."""

    first_day: date
    as_of: datetime
    timezone: str

    @property
    def complete_until(self) -> date:
        """The local day of `as_of`; the days before it are complete."""
        return self.local_day(self.as_of)

    @property
    def history_days(self) -> int:
        """Number of complete days of history."""
        return (self.complete_until - self.first_day).days

    def cutoff_before(self, days: int) -> datetime:
        """The cutoff `days` days before the run: as_of itself for 0, else the start of that day."""
        return self.as_of if days == 0 else self.day_start(days)

    def day_start(self, days: int) -> datetime:
        """The start of the local day `days` days before that of as_of."""
        return datetime.combine(self.complete_until - timedelta(days=days), time(), ZoneInfo(self.timezone))

    def local_day(self, instant: datetime) -> date:
        """The local day of an instant."""
        return instant.astimezone(ZoneInfo(self.timezone)).date()

    def days_before_run(self, instant: datetime) -> int:
        """Number of days from the local day of an instant to that of as_of."""
        return (self.complete_until - self.local_day(instant)).days


def training_cutoffs(
    calendar: TrainingCalendar, windows: Sequence[int], *, max_cutoffs: int = 18, gap_days: int = 7
) -> list[datetime]:
    """Cutoffs to learn from, oldest first: as_of, the starts of hold-out windows, a year ago, and an even spread.

    For each of `windows`, hold-outs start 1, 2 and 3 windows ago. The cutoff a year ago, where the history is that
    long, shows what the same season brought then. The spread covers the whole history after a warm-up of a quarter of
    it (at most 90 days) up to `gap_days` before the run. Its step is no multiple of 7, so that the days ahead do not
    always begin on one weekday.
    """
    warm_up = min(90, calendar.history_days // 4)
    longest = calendar.history_days - warm_up
    step = max(1, -(-(longest - gap_days) // max_cutoffs))
    step += step % 7 == 0
    evenly_spaced = range(gap_days, longest + 1, step)
    holdouts = {days for window in windows for days in (window, 2 * window, 3 * window)}
    cutoff_days = {0, *evenly_spaced, *(days for days in (*holdouts, YEAR_DAYS) if days <= longest)}
    return [calendar.cutoff_before(days) for days in sorted(cutoff_days, reverse=True)]


def local_days(instants: pd.Series, timezone: str) -> DayNumbers:
    """Local day of each instant, as days since 1970-01-01, (n,)."""
    local = instants.dt.tz_convert(timezone).dt.tz_localize(None)
    return local.to_numpy().astype("datetime64[D]").astype(np.int64)
