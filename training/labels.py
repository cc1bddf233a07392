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

from models.season import YEAR_DAYS

Days = NDArray[np.int64]

#: Enough days for any shop's history, so that (customer, day) fits one sortable integer.
_DAY_SPAN = 100_000
#: The share of an offer's days after which who has not redeemed it counts as having passed it over.
WATCHED = 0.1


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


def moments(calendar: Calendar, windows: Sequence[int], *, most: int = 18, gap_days: int = 7) -> list[datetime]:
    """Moments to learn from, oldest first: the run's own, one at the start of each holdout window, and a spread.

    A year ago is among them where the history reaches so far: what the season did then is told by it.

    The spread covers the whole history after a warm-up of a quarter of it (at most 90 days) up to `gap_days`
    before the run. Its step is no multiple of 7, so that the days ahead do not always begin on one weekday.
    """
    warm_up = min(90, calendar.history_days // 4)
    longest = calendar.history_days - warm_up
    step = max(1, -(-(longest - gap_days) // most))
    step += step % 7 == 0
    spread = range(gap_days, longest + 1, step)
    holdouts = {days for window in windows for days in (window, 2 * window, 3 * window)}
    wanted = {0, *spread, *(days for days in (*holdouts, YEAR_DAYS) if days <= longest)}
    return [calendar.back(days) for days in sorted(wanted, reverse=True)]


def local_days(instants: pd.Series, timezone: str) -> Days:
    """The shop's day of each instant, as days since 1970."""
    local = instants.dt.tz_convert(timezone).dt.tz_localize(None)
    return local.to_numpy().astype("datetime64[D]").astype(np.int64)


def next_purchase_days(rows: pd.DataFrame, purchases: pd.DataFrame, timezone: str) -> NDArray[np.float64]:
    """Days from each row's `as_of` to the customer's next purchase day, 1 for the day of `as_of` itself; NaN for none.

    rows: customer_key, as_of. purchases: customer_key, day; one row a purchase day.
    """
    known = np.unique(purchases["customer_key"].to_numpy(np.int64))
    bought = np.searchsorted(known, purchases["customer_key"].to_numpy(np.int64))
    asked = np.searchsorted(known, rows["customer_key"].to_numpy(np.int64))
    here = np.isin(rows["customer_key"], known)
    return np.where(here, _waits(rows, asked, bought, purchases["day"], timezone), np.nan)


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


def spent_next(
    rows: pd.DataFrame, purchases: pd.DataFrame, *, days: int, calendar: Calendar, until: date | None = None
) -> NDArray[np.float64]:
    """What the customer spends in the `days` days from as_of, nothing being 0; NaN while those days still run.

    purchases: customer_key, day, spend; one row a purchase day.
    """
    so_far = spent_so_far(rows, purchases, days=days, calendar=calendar, until=until)
    return np.where(so_far["days"] >= days, so_far["spent"], np.nan)


def spent_so_far(
    rows: pd.DataFrame, purchases: pd.DataFrame, *, days: int, calendar: Calendar, until: date | None = None
) -> pd.DataFrame:
    """What the customer spends in the `days` days from as_of, or in those of them that are over: spent, and days.

    Who has bought nothing so far has spent 0; days is 0 where none of them is over.
    """
    known = np.unique(purchases["customer_key"].to_numpy(np.int64))
    bought = _place(
        np.searchsorted(known, purchases["customer_key"].to_numpy(np.int64)), _day_numbers(purchases["day"])
    )
    order = np.argsort(bought, kind="stable")
    piled = np.concatenate([[0.0], np.cumsum(purchases["spend"].to_numpy(np.float64)[order])])
    asked = local_days(rows["as_of"], calendar.timezone)
    over = np.clip(_day_number(until or calendar.known_until) - asked, 0, days)
    start = _place(np.searchsorted(known, rows["customer_key"].to_numpy(np.int64)), asked)
    spent = piled[np.searchsorted(bought[order], start + over)] - piled[np.searchsorted(bought[order], start)]
    here = np.isin(rows["customer_key"], known)
    columns = {"spent": np.where(here, np.round(spent, 6), 0.0), "days": over.astype(np.float64)}
    return pd.DataFrame(columns, index=rows.index)


def needed_next(
    rows: pd.DataFrame,
    category_days: pd.DataFrame,
    *,
    within: Sequence[int],
    calendar: Calendar,
    until: date | None = None,
) -> pd.DataFrame:
    """Whether each customer buys from the row's category again within so many days: columns within_DAYS.

    1 for yes, 0 for no, NaN while those days still run. category_days: customer_key, category, day.
    """
    waits = _next_need_days(rows, category_days, calendar.timezone)
    watched = _day_number(until or calendar.known_until) - local_days(rows["as_of"], calendar.timezone)
    columns = {f"within_{days}": np.where(watched >= days, (waits <= days) * 1.0, np.nan) for days in within}
    return pd.DataFrame(columns, index=rows.index)


def redeemed(
    rows: pd.DataFrame,
    redemptions: pd.DataFrame,
    offers: pd.DataFrame,
    *,
    calendar: Calendar,
    until: date | None = None,
) -> NDArray[np.float64]:
    """1 where the customer redeems the row's offer from as_of on, 0 where not; NaN while nobody can say.

    An offer that still runs counts as passed over once it was watched for WATCHED of its days: most redemptions
    come early, and waiting for the longest campaigns would leave out the latest. rows: customer_key, as_of,
    offer_key. redemptions: customer_key, offer_key, redeemed_at. offers: offer_key, ends_at.
    """
    end = _day_number(until or calendar.known_until)
    asked = local_days(rows["as_of"], calendar.timezone)
    told = rows[["customer_key", "offer_key", "as_of"]].assign(row=np.arange(len(rows)))
    found = told.merge(redemptions, on=["customer_key", "offer_key"])
    found = found[found["redeemed_at"] >= found["as_of"]]
    found = found[local_days(found["redeemed_at"], calendar.timezone) < end]
    taken = np.zeros(len(rows), dtype=bool)
    taken[found["row"].to_numpy(np.int64)] = True
    ends = rows["offer_key"].map(offers.drop_duplicates("offer_key").set_index("offer_key")["ends_at"])
    # The offer's last day is the one before the day on which it has ended.
    length = np.where(ends.notna(), _days_or_zero(ends, calendar.timezone) - asked, np.inf)
    seen = (end > asked) & (end - asked >= WATCHED * length)
    return np.where(taken, 1.0, np.where(seen, 0.0, np.nan))


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


def _next_need_days(rows: pd.DataFrame, category_days: pd.DataFrame, timezone: str) -> NDArray[np.float64]:
    """Days from as_of to the next purchase from the row's category, 1 for the day of as_of itself; NaN for none."""
    customers = np.unique(category_days["customer_key"].to_numpy(np.int64))
    categories = pd.Index(category_days["category"].unique())
    bought = np.searchsorted(customers, category_days["customer_key"].to_numpy(np.int64)) * len(categories)
    bought += categories.get_indexer(category_days["category"])
    said = categories.get_indexer(rows["category"])
    asked = np.searchsorted(customers, rows["customer_key"].to_numpy(np.int64)) * len(categories) + said
    here = np.isin(rows["customer_key"], customers) & (said >= 0)
    return np.where(here, _waits(rows, asked, bought, category_days["day"], timezone), np.nan)


def _waits(rows: pd.DataFrame, asked: Days, bought: Days, days: pd.Series, timezone: str) -> NDArray[np.float64]:
    """Days from each row's as_of to the next of the days on which the same thing (a number) was bought."""
    happened = np.sort(_place(bought, _day_numbers(days)))
    here = _place(asked, local_days(rows["as_of"], timezone))
    following = np.append(happened, np.iinfo(np.int64).max)[np.searchsorted(happened, here)]
    same = following // _DAY_SPAN == here // _DAY_SPAN
    return np.where(same, following - here + 1, np.nan).astype(np.float64)


def _place(things: Days, days: Days) -> Days:
    """One sortable integer for a thing's number and a day; ranks stand in for keys, which would overflow."""
    return np.asarray(things, dtype=np.int64) * _DAY_SPAN + days


def _days_or_zero(instants: pd.Series, timezone: str) -> Days:
    """Local days, 0 where the instant is unknown."""
    filled = pd.to_datetime(instants, utc=True).fillna(pd.Timestamp(0, tz="UTC"))
    return local_days(filled, timezone)


def _day_numbers(days: pd.Series) -> Days:
    return pd.to_datetime(days).to_numpy().astype("datetime64[D]").astype(np.int64)


def _day_number(day: date) -> int:
    return int(np.datetime64(day, "D").astype(np.int64))
