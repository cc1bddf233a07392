"""Labels: what happened next, looked up only after the moment a question was asked.

A question is asked at a moment; its answer lies in the days from that moment on. `known_until` is the first day
whose sales are not complete yet: nothing on or after it may become a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Days = NDArray[np.int64]

#: Enough days for any shop's history, so that (customer, day) fits one sortable integer.
_DAY_SPAN = 100_000


@dataclass(frozen=True, slots=True)
class Calendar:
    """The shop's days around a run: from its first sale to the moment the run is asked for."""

    first_day: date
    as_of: datetime
    timezone: str

    @property
    def known_until(self) -> date:
        """The day of `as_of`: the days before it are complete."""
        return self.day_of(self.as_of)

    @property
    def history_days(self) -> int:
        """Complete days of history."""
        return (self.known_until - self.first_day).days

    def back(self, days: int) -> datetime:
        """The moment `days` days before the run: the run's own moment for 0, else the start of that day."""
        return self.as_of if days == 0 else self.day_start(days)

    def day_start(self, days: int) -> datetime:
        """The start of the day `days` days before the run's own day."""
        return datetime.combine(self.known_until - timedelta(days=days), time(), ZoneInfo(self.timezone))

    def day_of(self, moment: datetime) -> date:
        """The shop's day of a moment."""
        return moment.astimezone(ZoneInfo(self.timezone)).date()

    def days_back(self, moment: datetime) -> int:
        """How many days before the run this moment's day is."""
        return (self.known_until - self.day_of(moment)).days


def moments(calendar: Calendar, windows: Sequence[int], *, most: int = 14, gap_days: int = 7) -> list[datetime]:
    """Moments to learn from, oldest first: the run's own, one at the start of each holdout window, and a spread.

    The spread covers the whole history after a warm-up of a quarter of it (at most 90 days) up to `gap_days`
    before the run. Its step is no multiple of 7, so that the days ahead do not always begin on one weekday.
    """
    warm_up = min(90, calendar.history_days // 4)
    longest = calendar.history_days - warm_up
    step = max(1, -(-(longest - gap_days) // most))
    step += step % 7 == 0
    spread = range(gap_days, longest + 1, step)
    wanted = {0, *(days for window in windows for days in (window, 2 * window, 3 * window) if days <= longest), *spread}
    return [calendar.back(days) for days in sorted(wanted, reverse=True)]


def local_days(instants: pd.Series, timezone: str) -> Days:
    """The shop's day of each instant, as days since 1970."""
    local = instants.dt.tz_convert(timezone).dt.tz_localize(None)
    return local.to_numpy().astype("datetime64[D]").astype(np.int64)


def next_purchase_days(rows: pd.DataFrame, purchases: pd.DataFrame, timezone: str) -> NDArray[np.float64]:
    """Days from each row's `as_of` to the customer's next purchase day, 1 for the day of `as_of` itself; NaN for none.

    rows: customer_key, as_of. purchases: customer_key, day; one row a purchase day.
    """
    asked = local_days(rows["as_of"], timezone)
    known = np.unique(purchases["customer_key"].to_numpy(np.int64))
    bought = np.sort(_place(known, purchases["customer_key"], _day_numbers(purchases["day"])))
    here = _place(known, rows["customer_key"], asked)
    found = np.searchsorted(bought, here)
    following = np.append(bought, np.iinfo(np.int64).max)[found]
    same = (following // _DAY_SPAN == here // _DAY_SPAN) & np.isin(rows["customer_key"], known)
    return np.where(same, following - here + 1, np.nan).astype(np.float64)


def gone_quiet(
    rows: pd.DataFrame, purchases: pd.DataFrame, *, days: int, calendar: Calendar, until: date | None = None
) -> NDArray[np.float64]:
    """1 for no purchase in the `days` days from as_of, 0 for one or more; NaN while those days still run."""
    asked = local_days(rows["as_of"], calendar.timezone)
    complete = asked + days <= _day_number(until or calendar.known_until)
    quiet = ~(next_purchase_days(rows, purchases, calendar.timezone) <= days)
    return np.where(complete, quiet.astype(np.float64), np.nan)


def time_to_next(
    rows: pd.DataFrame, purchases: pd.DataFrame, *, calendar: Calendar, until: date | None = None
) -> pd.DataFrame:
    """Days to the next purchase, right-censored at `until`: columns duration_days and observed.

    A customer who has not bought by then is kept with the days waited so far: dropping them would teach the
    model that everybody comes back soon.
    """
    end = _day_number(until or calendar.known_until)
    waited = end - local_days(rows["as_of"], calendar.timezone)
    following = next_purchase_days(rows, purchases, calendar.timezone)
    observed = following <= waited
    duration = np.where(observed, following, np.maximum(waited, 0)).astype(np.float64)
    return pd.DataFrame({"duration_days": duration, "observed": observed}, index=rows.index)


def bought_next(rows: pd.DataFrame, baskets: dict[datetime, pd.DataFrame]) -> pd.Series:
    """Arrays of the products each customer bought in the window after as_of; None where the window is not over.

    baskets: for each moment whose window is complete, a frame of customer_key and product_keys. A customer who
    bought nothing in a complete window has an empty array.
    """
    answer = pd.Series([None] * len(rows), index=rows.index, dtype=object)
    empty = np.empty(0, dtype=np.int64)
    for moment, frame in baskets.items():
        here = rows["as_of"] == moment
        found = frame.set_index("customer_key")["product_keys"].reindex(rows.loc[here, "customer_key"])
        answer.loc[here] = pd.Series(
            [empty if isinstance(keys, float) else np.asarray(keys, np.int64) for keys in found],
            index=rows.index[here],
            dtype=object,
        )
    return answer


def _place(known: Days, customer_keys: pd.Series, days: Days) -> Days:
    """One sortable integer for a customer and a day; the customer's rank stands in, since a key would overflow."""
    return np.searchsorted(known, customer_keys.to_numpy(np.int64)) * _DAY_SPAN + days


def _day_numbers(days: pd.Series) -> Days:
    return pd.to_datetime(days).to_numpy().astype("datetime64[D]").astype(np.int64)


def _day_number(day: date) -> int:
    return int(np.datetime64(day, "D").astype(np.int64))
