"""Right-censored times to the next purchase: follow-up days, event indicator and cutoff of each row."""

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
#: Validation rows begin at the latest cutoff with a follow-up of this many days.
VALIDATION_DAYS = 28
#: Cutoffs are the shop's midnights, in UTC: a change of clocks between two of them removes or adds an hour.
CLOCK_CHANGE_SLACK = np.timedelta64(12, "h")


@dataclass(frozen=True)
class CensoredDurations:
    """For each row: days of follow-up, whether they ended with a purchase, and the cutoff they start at."""

    follow_up_days: Ints
    has_purchase: Mask
    cutoff: NDArray[np.datetime64]

    @classmethod
    def from_label(cls, frame: pd.DataFrame, label: pd.DataFrame, days: int) -> Self:
        """Read label columns duration_days and observed; follow-up is truncated after `days` days."""
        follow_up_days, has_purchase = kaplan_meier.read_durations(label, days)
        return cls(follow_up_days.astype(np.int64), has_purchase, read_cutoffs(frame))

    @property
    def has_follow_up(self) -> Mask:
        """Which rows have at least one day of follow-up: array (n,)."""
        return self.follow_up_days > 0

    def subset(self, which: Any) -> Self:
        """The rows selected by a mask or positions."""
        return type(self)(self.follow_up_days[which], self.has_purchase[which], self.cutoff[which])

    def censored_at(self, end: np.datetime64) -> Self:
        """The same rows as known at `end`: later purchases are censored."""
        limit = np.maximum((end + CLOCK_CHANGE_SLACK - self.cutoff) // np.timedelta64(1, "D"), 0).astype(np.int64)
        has_purchase = self.has_purchase & (self.follow_up_days <= limit)
        return type(self)(np.minimum(self.follow_up_days, limit), has_purchase, self.cutoff)

    def validation_cutoff(self, days: int) -> np.datetime64 | None:
        """The first cutoff of the validation rows; earlier ones are for training.

        None where no cutoff has a follow-up of VALIDATION_DAYS (or of `days`, if fewer).
        """
        end = (self.cutoff + self.follow_up_days.astype("timedelta64[D]"))[self.has_follow_up].max(initial=_EPOCH)
        complete_cutoffs = self.cutoff[has_elapsed(self.cutoff, min(VALIDATION_DAYS, days), end)]
        return complete_cutoffs.max() if len(complete_cutoffs) else None


_EPOCH = np.datetime64(0, "us")


def has_elapsed(cutoff: NDArray[np.datetime64], days: Ints | int, end: np.datetime64) -> Mask:
    """Whether `days` whole days after each cutoff were over at `end`, despite clock changes: (n,) or (n, periods)."""
    return np.asarray(cutoff + np.asarray(days).astype("timedelta64[D]") <= end + CLOCK_CHANGE_SLACK)


def read_cutoffs(frame: pd.DataFrame) -> NDArray[np.datetime64]:
    """The cutoff of every row, from column as_of, in UTC: array (n,)."""
    return pd.to_datetime(frame["as_of"], utc=True, cache=False).to_numpy(dtype="datetime64[us]")


def end_of_follow_up(durations: CensoredDurations) -> np.datetime64:
    """The last day of follow-up over all rows."""
    end_dates = durations.cutoff + durations.follow_up_days.astype("timedelta64[D]")
    return end_dates[durations.has_follow_up].max(initial=np.datetime64(0, "us"))
