"""Labels: what happened after the as_of of each row.

`until` is the first day whose sales are not complete: nothing on or after it may become a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.calendar import DayNumbers, TrainingCalendar, local_days

#: Enough days for any shop's history, so that (customer, day) fits one sortable integer.
_DAY_SPAN = 100_000
#: Share of an offer's days after which it counts as not redeemed by a customer who has not redeemed it yet.
MIN_FOLLOW_UP_SHARE = 0.1


def days_to_next_purchase(rows: pd.DataFrame, purchases: pd.DataFrame, timezone: str) -> NDArray[np.float64]:
    """Days from each row's as_of to the customer's next purchase day, (n,); NaN for none.

    The day of as_of itself counts as 1. rows: columns customer_key, as_of. purchases: columns customer_key, day; one
    row per purchase day.
    """
    customers = np.unique(purchases["customer_key"].to_numpy(np.int64))
    purchase_customers = np.searchsorted(customers, purchases["customer_key"].to_numpy(np.int64))
    row_customers = np.searchsorted(customers, rows["customer_key"].to_numpy(np.int64))
    has_purchases = np.isin(rows["customer_key"], customers)
    return np.where(
        has_purchases, _days_to_next(rows, row_customers, purchase_customers, purchases["day"], timezone), np.nan
    )


def churned(
    rows: pd.DataFrame, purchases: pd.DataFrame, *, days: int, calendar: TrainingCalendar, until: date | None = None
) -> NDArray[np.float64]:
    """1 for no purchase in the `days` days from as_of, 0 for one or more, (n,); NaN while those days are not over.

    rows: columns customer_key, as_of. purchases: columns customer_key, day.
    """
    as_of_days = local_days(rows["as_of"], calendar.timezone)
    is_complete = as_of_days + days <= _day_number(until or calendar.complete_until)
    has_churned = ~(days_to_next_purchase(rows, purchases, calendar.timezone) <= days)
    return np.where(is_complete, has_churned.astype(np.float64), np.nan)


def time_to_next_purchase(
    rows: pd.DataFrame, purchases: pd.DataFrame, *, calendar: TrainingCalendar, until: date | None = None
) -> pd.DataFrame:
    """Days to the next purchase, right-censored at `until`: columns duration_days (float64) and observed (bool).

    A customer without a purchase by then stays in, with the follow-up days so far: leaving them out would teach the
    model that all customers come back soon.
    """
    end = _day_number(until or calendar.complete_until)
    follow_up_days = end - local_days(rows["as_of"], calendar.timezone)
    following = days_to_next_purchase(rows, purchases, calendar.timezone)
    is_observed = following <= follow_up_days
    duration = np.where(is_observed, following, np.maximum(follow_up_days, 0)).astype(np.float64)
    return pd.DataFrame({"duration_days": duration, "observed": is_observed}, index=rows.index)


def spend_within(
    rows: pd.DataFrame, purchases: pd.DataFrame, *, days: int, calendar: TrainingCalendar, until: date | None = None
) -> NDArray[np.float64]:
    """Spend in the `days` days from as_of, (n,), 0 without a purchase; NaN while those days are not over.

    purchases: columns customer_key, day, spend; one row per purchase day.
    """
    spend = spend_so_far(rows, purchases, days=days, calendar=calendar, until=until)
    return np.where(spend["days"] >= days, spend["spent"], np.nan)


def spend_so_far(
    rows: pd.DataFrame, purchases: pd.DataFrame, *, days: int, calendar: TrainingCalendar, until: date | None = None
) -> pd.DataFrame:
    """Spend in those of the `days` days from as_of that are over: columns spent, days (how many are over).

    A customer without a purchase so far has spent 0; days is 0 where none of them is over.
    """
    customers = np.unique(purchases["customer_key"].to_numpy(np.int64))
    purchase_keys = _sortable_keys(
        np.searchsorted(customers, purchases["customer_key"].to_numpy(np.int64)), _day_numbers(purchases["day"])
    )
    order = np.argsort(purchase_keys, kind="stable")
    cumulative_spend = np.concatenate([[0.0], np.cumsum(purchases["spend"].to_numpy(np.float64)[order])])
    as_of_days = local_days(rows["as_of"], calendar.timezone)
    elapsed_days = np.clip(_day_number(until or calendar.complete_until) - as_of_days, 0, days)
    start = _sortable_keys(np.searchsorted(customers, rows["customer_key"].to_numpy(np.int64)), as_of_days)
    spent = (
        cumulative_spend[np.searchsorted(purchase_keys[order], start + elapsed_days)]
        - cumulative_spend[np.searchsorted(purchase_keys[order], start)]
    )
    has_purchases = np.isin(rows["customer_key"], customers)
    columns = {"spent": np.where(has_purchases, np.round(spent, 6), 0.0), "days": elapsed_days.astype(np.float64)}
    return pd.DataFrame(columns, index=rows.index)


def repurchased_within(
    rows: pd.DataFrame,
    category_days: pd.DataFrame,
    *,
    horizons: Sequence[int],
    calendar: TrainingCalendar,
    until: date | None = None,
) -> pd.DataFrame:
    """Whether the customer buys from the row's category again within each horizon: columns within_DAYS.

    1 for yes, 0 for no, NaN while those days are not over. rows: columns customer_key, as_of, category. category_days:
    customer_key, category, day.
    """
    days_to_next = _days_to_next_category_purchase(rows, category_days, calendar.timezone)
    follow_up_days = _day_number(until or calendar.complete_until) - local_days(rows["as_of"], calendar.timezone)
    columns = {
        f"within_{days}": np.where(follow_up_days >= days, (days_to_next <= days) * 1.0, np.nan) for days in horizons
    }
    return pd.DataFrame(columns, index=rows.index)


def redeemed(
    rows: pd.DataFrame,
    redemptions: pd.DataFrame,
    offers: pd.DataFrame,
    *,
    calendar: TrainingCalendar,
    until: date | None = None,
) -> NDArray[np.float64]:
    """1 where the customer redeems the row's offer from as_of on, 0 where not, (n,); NaN where that is undecided.

    An offer that still runs counts as not redeemed after MIN_FOLLOW_UP_SHARE of its days: most redemptions come early,
    and waiting for the end of the longest campaigns would leave out the latest. rows: columns customer_key, as_of,
    offer_key. redemptions: customer_key, offer_key, redeemed_at. offers: offer_key, ends_at.
    """
    end = _day_number(until or calendar.complete_until)
    as_of_days = local_days(rows["as_of"], calendar.timezone)
    row_keys = rows[["customer_key", "offer_key", "as_of"]].assign(row=np.arange(len(rows)))
    matches = row_keys.merge(redemptions, on=["customer_key", "offer_key"])
    matches = matches[matches["redeemed_at"] >= matches["as_of"]]
    matches = matches[local_days(matches["redeemed_at"], calendar.timezone) < end]
    is_redeemed = np.zeros(len(rows), dtype=bool)
    is_redeemed[matches["row"].to_numpy(np.int64)] = True
    ends = rows["offer_key"].map(offers.drop_duplicates("offer_key").set_index("offer_key")["ends_at"])
    # The offer's last day is the one before the day of ends_at.
    length = np.where(ends.notna(), _days_or_zero(ends, calendar.timezone) - as_of_days, np.inf)
    has_follow_up = (end > as_of_days) & (end - as_of_days >= MIN_FOLLOW_UP_SHARE * length)
    return np.where(is_redeemed, 1.0, np.where(has_follow_up, 0.0, np.nan))


def products_bought_next(rows: pd.DataFrame, baskets: dict[datetime, pd.DataFrame]) -> pd.Series:
    """Array of products that each customer bought in the window after as_of, (n,); None where the window is not over.

    baskets: for each cutoff with a complete window, a frame of columns customer_key, product_keys. A customer without a
    purchase in a complete window has an empty array.
    """
    products = pd.Series([None] * len(rows), index=rows.index, dtype=object)
    empty = np.empty(0, dtype=np.int64)
    for cutoff, frame in baskets.items():
        is_at_cutoff = rows["as_of"] == cutoff
        bought_keys = frame.set_index("customer_key")["product_keys"].reindex(rows.loc[is_at_cutoff, "customer_key"])
        products.loc[is_at_cutoff] = pd.Series(
            [empty if isinstance(keys, float) else np.asarray(keys, np.int64) for keys in bought_keys],
            index=rows.index[is_at_cutoff],
            dtype=object,
        )
    return products


def _days_to_next_category_purchase(
    rows: pd.DataFrame, category_days: pd.DataFrame, timezone: str
) -> NDArray[np.float64]:
    """Days from as_of to the next purchase in the row's category, (n,): 1 for the day of as_of, NaN for none."""
    customers = np.unique(category_days["customer_key"].to_numpy(np.int64))
    categories = pd.Index(category_days["category"].unique())
    purchase_keys = np.searchsorted(customers, category_days["customer_key"].to_numpy(np.int64)) * len(categories)
    purchase_keys += categories.get_indexer(category_days["category"])
    category_codes = categories.get_indexer(rows["category"])
    row_keys = np.searchsorted(customers, rows["customer_key"].to_numpy(np.int64)) * len(categories) + category_codes
    is_matched = np.isin(rows["customer_key"], customers) & (category_codes >= 0)
    return np.where(is_matched, _days_to_next(rows, row_keys, purchase_keys, category_days["day"], timezone), np.nan)


def _days_to_next(
    rows: pd.DataFrame, row_keys: DayNumbers, purchase_keys: DayNumbers, days: pd.Series, timezone: str
) -> NDArray[np.float64]:
    """Days from each row's as_of to the next of `days` with the same key, (n,); NaN for none."""
    purchases = np.sort(_sortable_keys(purchase_keys, _day_numbers(days)))
    as_of_keys = _sortable_keys(row_keys, local_days(rows["as_of"], timezone))
    following = np.append(purchases, np.iinfo(np.int64).max)[np.searchsorted(purchases, as_of_keys)]
    is_same_key = following // _DAY_SPAN == as_of_keys // _DAY_SPAN
    return np.where(is_same_key, following - as_of_keys + 1, np.nan).astype(np.float64)


def _sortable_keys(keys: DayNumbers, days: DayNumbers) -> DayNumbers:
    """One sortable integer per key and day, (n,); keys are ranks, since customer keys would overflow."""
    return np.asarray(keys, dtype=np.int64) * _DAY_SPAN + days


def _days_or_zero(instants: pd.Series, timezone: str) -> DayNumbers:
    """Local days, (n,); 0 where the instant is missing."""
    filled = pd.to_datetime(instants, utc=True).fillna(pd.Timestamp(0, tz="UTC"))
    return local_days(filled, timezone)


def _day_numbers(days: pd.Series) -> DayNumbers:
    return pd.to_datetime(days).to_numpy().astype("datetime64[D]").astype(np.int64)


def _day_number(day: date) -> int:
    return int(np.datetime64(day, "D").astype(np.int64))
