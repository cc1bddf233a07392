"""Campaign waves: mailings that reached some customers and not others, so that the two groups can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from customers.ledger import interactions
from customers.shop.settings import Shop
from features.families import engagement
from models.uplift.cross_fitting import OVERLAP
from models.uplift.treatment_data import MIN_GROUP_SIZE
from pipelines.errors import NothingToDo
from training.calendar import TrainingCalendar
from training.tasks.task import TrainingData

#: Days of outcome after a mailing, and days before it in which other contacts count.
FOLLOW_UP_DAYS = 28
#: A campaign goes out within a week; a later contact of the same campaign belongs to no mailing.
SENDING_DAYS = 7
#: At most the mailings with the largest smaller group: more would take longer and add little evidence.
MAX_WAVES = 10
#: The fewest contacted customers, and the fewest others, with which a mailing is analysed.
MIN_WAVE_GROUP = 30


@dataclass(frozen=True)
class CampaignWaves:
    """Mailings that can be analysed, and every contact of the shop with a customer.

    `first_days`: the first day of each mailing by its cutoff, the start of the day after the last one was sent. What
    customers did while it went out is known at the cutoff, since it may be why they were contacted. `contacts` has
    columns customer_key, day (the day of the cutoff, without a zone; NaT for a contact of no mailing) and on (the day
    of the contact); `excluded_customers` has customer_key and day, of customers who are in neither group. `left_out`
    holds the reasons why other mailings are not analysed, as text.
    """

    first_days: dict[datetime, datetime]
    contacts: pd.DataFrame
    excluded_customers: pd.DataFrame
    left_out: list[str]

    @property
    def cutoffs(self) -> list[datetime]:
        """The cutoffs of the mailings: outcomes count from then on."""
        return list(self.first_days)

    def comparable_rows(self, frame: pd.DataFrame, calendar: TrainingCalendar) -> pd.DataFrame:
        """Rows of customers who can be compared, as of each mailing's cutoff: columns customer_key, as_of, features.

        Features of engagement are those of the mailing's first day: they must not contain the mailing itself.
        """
        engagement_columns = [name for name in engagement.column_names() if name in frame.columns]
        before = frame[["customer_key", "as_of", *engagement_columns]].rename(columns={"as_of": "began"})
        at_cutoff = frame[frame["as_of"].isin(self.cutoffs)].drop(columns=engagement_columns)
        at_cutoff = at_cutoff.assign(began=at_cutoff["as_of"].map(self.first_days).astype(frame["as_of"].dtype))
        with_engagement = at_cutoff.merge(before, on=["customer_key", "began"])[frame.columns]
        return with_engagement[~_is_among(with_engagement, calendar, self.excluded_customers)].reset_index(drop=True)

    def is_contacted(self, rows: pd.DataFrame, calendar: TrainingCalendar) -> np.ndarray:
        """Flags (n,): whether the mailing of the row's as_of reached its customer."""
        return _is_among(rows, calendar, self.contacts)

    def is_otherwise_contacted(self, rows: pd.DataFrame, calendar: TrainingCalendar) -> np.ndarray:
        """Flags (n,): whether another contact reached the customer in the FOLLOW_UP_DAYS before the mailing.

        Counted back from the first day of the mailing of the row's as_of.
        """
        first_days = rows["as_of"].map(self.first_days).astype(rows["as_of"].dtype)
        waves = pd.DataFrame({
            "customer_key": rows["customer_key"], "as_of": _local_days(rows["as_of"], calendar),
            "began": _local_days(first_days, calendar),
        })  # fmt: skip
        earlier_contacts = waves.assign(row=np.arange(len(waves))).merge(self.contacts, on="customer_key")
        days_before = (earlier_contacts["began"] - earlier_contacts["on"]).dt.days
        earlier_contacts = earlier_contacts[
            (earlier_contacts["day"] != earlier_contacts["as_of"]) & (days_before > 0) & (days_before <= FOLLOW_UP_DAYS)
        ]
        has_other_contact = np.zeros(len(rows), dtype=bool)
        has_other_contact[earlier_contacts["row"].to_numpy(np.int64)] = True
        return has_other_contact


def find_waves(shop: Shop, training_data: TrainingData) -> CampaignWaves:
    """Find past mailings that reached some of the customers of their day and left others out.

    Raises NothingToDo, with what to do about it, where there is no contact, no campaign or no such mailing.
    """
    calendar = training_data.calendar
    contacts = _load_contacts(shop, calendar)
    if contacts.empty:
        raise NothingToDo("the shop has contacted nobody yet: run: regulars load interactions FILE, of kind sent")
    if contacts["day"].isna().all():
        raise NothingToDo("no contact is known to be part of a campaign: load interactions with their campaign_id")
    first_days = contacts.groupby("day")["on"].min()
    excluded = _find_purchase_triggered(contacts, first_days, training_data.purchases)
    group_sizes = _count_groups(contacts, first_days, excluded, training_data.purchases)
    reasons = group_sizes.assign(day=group_sizes.index).apply(lambda row: _unfit_reason(row, calendar), axis=1)
    usable = group_sizes[reasons == ""]
    if usable.empty:
        raise NothingToDo(_no_wave_message(reasons))
    smaller_group = usable[["contacted", "others"]].min(axis=1).sort_values(ascending=False, kind="stable")
    chosen = sorted(smaller_group.index[:MAX_WAVES])
    left_out = [f"{count} {words}" for words, count in reasons[reasons != ""].value_counts().items()]
    left_out += [f"{len(usable) - MAX_WAVES} would add little"] if len(usable) > MAX_WAVES else []
    first_day_by_cutoff = {_day_start(day, calendar): _day_start(first_days[day], calendar) for day in chosen}
    return CampaignWaves(first_day_by_cutoff, contacts, excluded, left_out)


def shift_back(instant: datetime, calendar: TrainingCalendar, days: int = FOLLOW_UP_DAYS) -> datetime:
    """The start of the day `days` days before the day of `instant`."""
    return calendar.day_start(calendar.days_before_run(instant) + days)


def _load_contacts(shop: Shop, calendar: TrainingCalendar) -> pd.DataFrame:
    """Contacts with columns customer_key, day (of the mailing's cutoff; NaT for no mailing) and on, each row once."""
    events = interactions.load_by_kind(shop, engagement.CONTACT_ACTIONS, as_of=calendar.as_of)
    contact_days, campaign = _local_days(events["happened_at"], calendar), events["campaign_id"]
    campaign_starts = contact_days.groupby(campaign).transform("min")
    wave_days = contact_days.where(
        campaign_starts.notna() & (contact_days - campaign_starts < pd.Timedelta(days=SENDING_DAYS))
    )
    day = (wave_days.groupby(campaign).transform("max") + pd.Timedelta(days=1)).where(wave_days.notna())
    contacts = pd.DataFrame({"customer_key": events["customer_key"].astype("int64"), "day": day, "on": contact_days})
    return contacts.drop_duplicates(ignore_index=True)


def _find_purchase_triggered(contacts: pd.DataFrame, first_days: pd.Series, purchases: pd.DataFrame) -> pd.DataFrame:
    """Customers to exclude: of purchase-triggered mailings, those who bought while it went out; customer_key, day.

    A voucher as thanks, or the confirmation of an order, goes to customers who have just bought, and these are more
    likely to buy again anyway.
    """
    bought = purchases.sort_values("day").set_index("day")["customer_key"]
    parts = [pd.DataFrame({"customer_key": pd.Series(dtype="int64"), "day": pd.Series(dtype="datetime64[us]")})]
    for day, first in zip(pd.DatetimeIndex(first_days.index), first_days, strict=True):
        contact_days = contacts[contacts["day"] == day].groupby("customer_key")["on"].min()
        recent_buyers = bought.loc[first - pd.Timedelta(days=SENDING_DAYS) : day - pd.Timedelta(days=1)]
        if _is_purchase_triggered(recent_buyers, contact_days, first):
            parts.append(pd.DataFrame({"customer_key": recent_buyers.loc[first:].unique(), "day": day}))
    return pd.concat(parts, ignore_index=True)


def _is_purchase_triggered(bought: pd.Series, contact_days: pd.Series, first: pd.Timestamp) -> bool:
    """Whether more customers bought from the first day to their contact than in the same days of the week before.

    `bought` holds customer keys by day, `contact_days` the first day of contact by customer key. A sign test at two
    standard errors.
    """
    day, contact = pd.DatetimeIndex(bought.index), pd.DatetimeIndex(bought.map(contact_days))
    during = set(bought[(day >= first) & (day <= contact)])
    earlier = set(bought[(day < first) & (day <= contact - pd.Timedelta(days=SENDING_DAYS))])
    more, fewer = len(during - earlier), len(earlier - during)
    return more - fewer > 2 * (more + fewer) ** 0.5


def _count_groups(
    contacts: pd.DataFrame, first_days: pd.Series, excluded: pd.DataFrame, purchases: pd.DataFrame
) -> pd.DataFrame:
    """Group sizes by mailing, of customers with a purchase before its first day: reached, contacted, others, began.

    `reached` counts every contacted customer, `contacted` without the excluded ones.
    """
    first = purchases.groupby("customer_key")["day"].min()
    contacted = contacts.loc[contacts["day"].notna(), ["customer_key", "day"]].drop_duplicates(ignore_index=True)
    contacted, excluded_contacted = (
        pairs[pairs["day"].map(first_days) > pairs["customer_key"].map(first)] for pairs in (contacted, excluded)
    )
    joined = contacted.merge(excluded_contacted, on=["customer_key", "day"], how="left", indicator=True)
    sizes = [
        pairs.groupby("day").size().reindex(first_days.index, fill_value=0)
        for pairs in (contacted, excluded_contacted, joined[joined["_merge"] == "left_only"])
    ]
    customer_counts = np.searchsorted(np.sort(first.to_numpy()), first_days.to_numpy())
    counts = pd.DataFrame({"reached": sizes[0], "contacted": sizes[2], "others": customer_counts - sizes[1] - sizes[2]})
    return counts.assign(began=first_days)


def _unfit_reason(row: pd.Series, calendar: TrainingCalendar) -> str:
    """Why a mailing cannot be analysed, as text; empty where it can."""
    first: date = row["began"].date()
    day: date = row["day"].date()
    share = row["contacted"] / max(row["contacted"] + row["others"], 1)
    if first < calendar.first_day + timedelta(days=2 * FOLLOW_UP_DAYS):
        return f"went out within {2 * FOLLOW_UP_DAYS} days of the first sale"
    if day + timedelta(days=FOLLOW_UP_DAYS) > calendar.complete_until:
        return f"went out less than {FOLLOW_UP_DAYS} days ago"
    if row["contacted"] < MIN_WAVE_GROUP <= row["reached"]:
        return "went to customers because they had just bought"
    if share > OVERLAP[1] or row["others"] < MIN_WAVE_GROUP:
        return "went to everybody or nearly so"
    return "went to too few" if share < OVERLAP[0] or row["contacted"] < MIN_WAVE_GROUP else ""


def _no_wave_message(reasons: pd.Series) -> str:
    reason_counts = "; ".join(f"{count} {words}" for words, count in reasons.value_counts().items())
    return (
        f"no mailing can be compared with its absence: of {len(reasons)}, {reason_counts}. Leave some customers out of "
        f"the next campaign, drawn by lot, at least {MIN_GROUP_SIZE} in either group, and run this command again "
        f"{FOLLOW_UP_DAYS} days later"
    )


def _is_among(rows: pd.DataFrame, calendar: TrainingCalendar, pairs: pd.DataFrame) -> np.ndarray:
    """Flags (n,): whether the row's customer_key and the day of its as_of are among `pairs` (customer_key, day)."""
    keys = pd.MultiIndex.from_arrays([rows["customer_key"], _local_days(rows["as_of"], calendar)])
    return np.asarray(keys.isin(pd.MultiIndex.from_frame(pairs.loc[pairs["day"].notna(), ["customer_key", "day"]])))


def _local_days(instants: pd.Series, calendar: TrainingCalendar) -> pd.Series:
    """Days of timestamps in the shop's timezone, as midnights without a zone, like the days of purchases."""
    return instants.dt.tz_convert(calendar.timezone).dt.tz_localize(None).dt.normalize().astype("datetime64[us]")


def _day_start(day: pd.Timestamp, calendar: TrainingCalendar) -> datetime:
    return calendar.day_start((calendar.complete_until - day.date()).days)
