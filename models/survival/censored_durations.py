"""Waits: how long customers were watched until they came back, and what their rhythm says of the days ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.survival import kaplan_meier

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
#: The moments held back to say when to stop are the latest that were watched for this many days, and any later.
VALIDATION_DAYS = 28
#: Moments are the shop's midnights told in UTC: between two of them with a change of clocks an hour is missing.
CLOCK_CHANGE_SLACK = np.timedelta64(12, "h")


@dataclass(frozen=True)
class CensoredDurations:
    """How many days each row was watched, whether a purchase ended it, and from which moment on."""

    follow_up_days: Ints
    has_purchase: Mask
    cutoff: NDArray[np.datetime64]

    @classmethod
    def from_label(cls, frame: pd.DataFrame, label: pd.DataFrame, days: int) -> Self:
        """Read a label of duration_days and observed; what comes after `days` days is not looked at."""
        follow_up_days, has_purchase = kaplan_meier.read_durations(label, days)
        return cls(follow_up_days.astype(np.int64), has_purchase, read_cutoffs(frame))

    @property
    def has_follow_up(self) -> Mask:
        """Which rows have been watched for a day at least."""
        return self.follow_up_days > 0

    def subset(self, which: Any) -> Self:
        """Some of the rows: a mask, or their places."""
        return type(self)(self.follow_up_days[which], self.has_purchase[which], self.cutoff[which])

    def censored_at(self, end: np.datetime64) -> Self:
        """What was known of these rows at the end: later purchases have not happened yet."""
        limit = np.maximum((end + CLOCK_CHANGE_SLACK - self.cutoff) // np.timedelta64(1, "D"), 0).astype(np.int64)
        has_purchase = self.has_purchase & (self.follow_up_days <= limit)
        return type(self)(np.minimum(self.follow_up_days, limit), has_purchase, self.cutoff)

    def validation_cutoff(self, days: int) -> np.datetime64 | None:
        """The moment that parts rows to learn from and rows to judge by; None where nothing was watched for long."""
        end = (self.cutoff + self.follow_up_days.astype("timedelta64[D]"))[self.has_follow_up].max(initial=_EPOCH)
        complete_cutoffs = self.cutoff[has_elapsed(self.cutoff, min(VALIDATION_DAYS, days), end)]
        return complete_cutoffs.max() if len(complete_cutoffs) else None


_EPOCH = np.datetime64(0, "us")


def has_elapsed(cutoff: NDArray[np.datetime64], days: Ints | int, end: np.datetime64) -> Mask:
    """Whether so many whole days from each moment were over at the end, whatever the clocks did in between."""
    return np.asarray(cutoff + np.asarray(days).astype("timedelta64[D]") <= end + CLOCK_CHANGE_SLACK)


def read_cutoffs(frame: pd.DataFrame) -> NDArray[np.datetime64]:
    """The moment of every row."""
    return pd.to_datetime(frame["as_of"], utc=True).to_numpy(dtype="datetime64[us]")


def end_of_follow_up(durations: CensoredDurations) -> np.datetime64:
    """When watching ended, as the rows that still wait tell."""
    end_dates = durations.cutoff + durations.follow_up_days.astype("timedelta64[D]")
    return end_dates[durations.has_follow_up].max(initial=np.datetime64(0, "us"))
