"""Mailings: the days on which campaigns went out to some customers and not to others, who can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from customers import interactions
from customers.shop import Shop
from features import engagement
from models.trial import FEWEST
from models.unseen import OVERLAP
from pipelines.failures import NothingToDo
from training.labels import Calendar
from training.plans import World

#: How long after a mailing customers are watched, and how far before it they must have been known.
DAYS = 28
#: A campaign goes out within a week; who is reached later is reached by something else.
SENDING_DAYS = 7
#: The mailings that say most: more of them would take longer and say little more.
MOST = 10
#: A mailing to fewer than this, or one that left out fewer, says too little for a comparison of its own.
LEAST = 30


@dataclass(frozen=True)
class Mailings:
    """Mailings that can be looked back on, and everybody who was reached by anything.

    `began`: each mailing's first day, by the moment at which it is asked about, the day after its last was sent: what
    customers did while it went out is known then, for it may be why they were sent it. reached: customer_key, day
    (that of this moment, without a zone; NaT for what is no mailing), on (the day on which they were reached).
    barred: customer_key, day, of those who are in no comparison.
    """

    began: dict[datetime, datetime]
    reached: pd.DataFrame
    barred: pd.DataFrame
    left_out: list[str]

    @property
    def days(self) -> list[datetime]:
        """The moments at which mailings are asked about."""
        return list(self.began)

    def rows(self, frame: pd.DataFrame, calendar: Calendar) -> pd.DataFrame:
        """Whoever can be compared, as of each mailing's moment: customer_key, as_of and features.

        What the shop had sent them, and how they had answered, is told as of the first day: it must not know of the
        mailing.
        """
        sent = [name for name in engagement.names() if name in frame.columns]
        before = frame[["customer_key", "as_of", *sent]].rename(columns={"as_of": "began"})
        asked = frame[frame["as_of"].isin(self.days)].drop(columns=sent)
        asked = asked.assign(began=asked["as_of"].map(self.began).astype(frame["as_of"].dtype))
        told = asked.merge(before, on=["customer_key", "began"])[frame.columns]
        return told[~_among(told, calendar, self.barred)].reset_index(drop=True)

    def contacted(self, rows: pd.DataFrame, calendar: Calendar) -> np.ndarray:
        """Whether each row's customer was reached by the mailing of its as_of."""
        return _among(rows, calendar, self.reached)

    def otherwise(self, rows: pd.DataFrame, calendar: Calendar) -> np.ndarray:
        """Whether anything else reached each row's customer in the DAYS before the mailing of its as_of began."""
        began = rows["as_of"].map(self.began).astype(rows["as_of"].dtype)
        told = pd.DataFrame({
            "customer_key": rows["customer_key"], "as_of": _days(rows["as_of"], calendar),
            "began": _days(began, calendar),
        })  # fmt: skip
        met = told.assign(row=np.arange(len(told))).merge(self.reached, on="customer_key")
        away = (met["began"] - met["on"]).dt.days
        met = met[(met["day"] != met["as_of"]) & (away > 0) & (away <= DAYS)]
        found = np.zeros(len(rows), dtype=bool)
        found[met["row"].to_numpy(np.int64)] = True
        return found


def find(shop: Shop, world: World) -> Mailings:
    """The mailings of a shop that reached some of those it knew and left some out, and are over.

    Raises NothingToDo where there are none, with what to do about it.
    """
    calendar = world.calendar
    reached = _reached(shop, calendar)
    if reached.empty:
        raise NothingToDo("the shop has contacted nobody yet: run: regulars load interactions FILE, of kind sent")
    if reached["day"].isna().all():
        raise NothingToDo("no contact is known to be part of a campaign: load interactions with their campaign_id")
    began = reached.groupby("day")["on"].min()
    barred = _barred(reached, began, world.purchases)
    counted = _counted(reached, began, barred, world.purchases)
    why = counted.assign(day=counted.index).apply(lambda row: _unfit(row, calendar), axis=1)
    fit = counted[why == ""]
    if fit.empty:
        raise NothingToDo(_nothing(why))
    most = fit[["contacted", "others"]].min(axis=1).sort_values(ascending=False, kind="stable")
    chosen = sorted(most.index[:MOST])
    left = [f"{count} {words}" for words, count in why[why != ""].value_counts().items()]
    left += [f"{len(fit) - MOST} would add little"] if len(fit) > MOST else []
    asked = {_start(day, calendar): _start(began[day], calendar) for day in chosen}
    return Mailings(asked, reached, barred, left)


def before(moment: datetime, calendar: Calendar, days: int = DAYS) -> datetime:
    """The start of the day so many days before."""
    return calendar.day_start(calendar.days_back(moment) + days)


def _reached(shop: Shop, calendar: Calendar) -> pd.DataFrame:
    """Who was reached on which day, and the day after which what reached them had gone out; NaT for no mailing."""
    met = interactions.happened(shop, engagement.REACHING, as_of=calendar.as_of)
    on, campaign = _days(met["happened_at"], calendar), met["campaign_id"]
    begun = on.groupby(campaign).transform("min")
    together = on.where(begun.notna() & (on - begun < pd.Timedelta(days=SENDING_DAYS)))
    day = (together.groupby(campaign).transform("max") + pd.Timedelta(days=1)).where(together.notna())
    told = pd.DataFrame({"customer_key": met["customer_key"].astype("int64"), "day": day, "on": on})
    return told.drop_duplicates(ignore_index=True)


def _barred(reached: pd.DataFrame, began: pd.Series, purchases: pd.DataFrame) -> pd.DataFrame:
    """Of mailings that followed purchases, everybody who bought while they went out: customer_key, day.

    A voucher as thanks, or the confirmation of an order, goes to those who have just bought, and they are the
    likelier to buy again.
    """
    bought = purchases.sort_values("day").set_index("day")["customer_key"]
    parts = [pd.DataFrame({"customer_key": pd.Series(dtype="int64"), "day": pd.Series(dtype="datetime64[us]")})]
    for day, first in zip(pd.DatetimeIndex(began.index), began, strict=True):
        met = reached[reached["day"] == day].groupby("customer_key")["on"].min()
        here = bought.loc[first - pd.Timedelta(days=SENDING_DAYS) : day - pd.Timedelta(days=1)]
        if _followed(here, met, first):
            parts.append(pd.DataFrame({"customer_key": here.loc[first:].unique(), "day": day}))
    return pd.concat(parts, ignore_index=True)


def _followed(bought: pd.Series, met: pd.Series, first: pd.Timestamp) -> bool:
    """Whether customers bought more from the first day to their contact than in the same days of the week before.

    bought: customers, by their days; met: the days of contact, by their customers. The sign test, at two standard
    errors.
    """
    day, contact = pd.DatetimeIndex(bought.index), pd.DatetimeIndex(bought.map(met))
    then = set(bought[(day >= first) & (day <= contact)])
    earlier = set(bought[(day < first) & (day <= contact - pd.Timedelta(days=SENDING_DAYS))])
    more, fewer = len(then - earlier), len(earlier - then)
    return more - fewer > 2 * (more + fewer) ** 0.5


def _counted(reached: pd.DataFrame, began: pd.Series, barred: pd.DataFrame, purchases: pd.DataFrame) -> pd.DataFrame:
    """How many of those known when each mailing began it reached at all, and can be compared: contacted, others."""
    first = purchases.groupby("customer_key")["day"].min()
    told = reached.loc[reached["day"].notna(), ["customer_key", "day"]].drop_duplicates(ignore_index=True)
    told, out = (some[some["day"].map(began) > some["customer_key"].map(first)] for some in (told, barred))
    left = told.merge(out, on=["customer_key", "day"], how="left", indicator=True)
    sizes = [
        some.groupby("day").size().reindex(began.index, fill_value=0)
        for some in (told, out, left[left["_merge"] == "left_only"])
    ]
    known = np.searchsorted(np.sort(first.to_numpy()), began.to_numpy())
    counted = pd.DataFrame({"reached": sizes[0], "contacted": sizes[2], "others": known - sizes[1] - sizes[2]})
    return counted.assign(began=began)


def _unfit(row: pd.Series, calendar: Calendar) -> str:
    """Why a mailing cannot be looked back on, in words; empty where it can."""
    first: date = row["began"].date()
    day: date = row["day"].date()
    share = row["contacted"] / max(row["contacted"] + row["others"], 1)
    if first < calendar.first_day + timedelta(days=2 * DAYS):
        return f"went out within {2 * DAYS} days of the first sale"
    if day + timedelta(days=DAYS) > calendar.known_until:
        return f"went out less than {DAYS} days ago"
    if row["contacted"] < LEAST <= row["reached"]:
        return "went to customers because they had just bought"
    if share > OVERLAP[1] or row["others"] < LEAST:
        return "went to everybody or nearly so"
    return "went to too few" if share < OVERLAP[0] or row["contacted"] < LEAST else ""


def _nothing(why: pd.Series) -> str:
    told = "; ".join(f"{count} {words}" for words, count in why.value_counts().items())
    return (
        f"no mailing can be compared with its absence: of {len(why)}, {told}. Leave some customers out of the next "
        f"campaign, drawn by lot, at least {FEWEST} of either kind, and ask again {DAYS} days later"
    )


def _among(rows: pd.DataFrame, calendar: Calendar, pairs: pd.DataFrame) -> np.ndarray:
    """Whether each row's customer_key and the day of its as_of are among the pairs of customer_key and day."""
    asked = pd.MultiIndex.from_arrays([rows["customer_key"], _days(rows["as_of"], calendar)])
    return np.asarray(asked.isin(pd.MultiIndex.from_frame(pairs.loc[pairs["day"].notna(), ["customer_key", "day"]])))


def _days(instants: pd.Series, calendar: Calendar) -> pd.Series:
    """The shop's days of instants, as midnights without a zone, like those of purchases."""
    return instants.dt.tz_convert(calendar.timezone).dt.tz_localize(None).dt.normalize().astype("datetime64[us]")


def _start(day: pd.Timestamp, calendar: Calendar) -> datetime:
    return calendar.day_start((calendar.known_until - day.date()).days)
