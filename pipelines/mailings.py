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
    """Mailings that can be looked back on: `days` (their moments), and of everybody who was reached by anything.

    reached: customer_key, day (the mailing's first day, without a zone), on (the day on which they were reached).
    """

    days: list[datetime]
    reached: pd.DataFrame
    left_out: list[str]

    def contacted(self, rows: pd.DataFrame, calendar: Calendar) -> np.ndarray:
        """Whether each row's customer was reached by the mailing of its as_of."""
        asked = pd.MultiIndex.from_arrays([rows["customer_key"], _days(rows["as_of"], calendar)])
        return np.asarray(asked.isin(pd.MultiIndex.from_frame(self.reached[["customer_key", "day"]])))

    def otherwise(self, rows: pd.DataFrame, calendar: Calendar, start: int, end: int) -> np.ndarray:
        """Whether anything else reached each row's customer, from `start` until before `end` days from its as_of."""
        told = pd.DataFrame({"customer_key": rows["customer_key"].to_numpy(), "as_of": _days(rows["as_of"], calendar)})
        met = told.assign(row=np.arange(len(told))).merge(self.reached, on="customer_key")
        away = (met["on"] - met["as_of"]).dt.days
        met = met[(met["day"] != met["as_of"]) & (away >= start) & (away < end)]
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
    counted = _counted(reached, world)
    why = counted.assign(day=counted.index).apply(lambda row: _unfit(row, calendar), axis=1)
    fit = counted[why == ""]
    if fit.empty:
        raise NothingToDo(_nothing(why))
    chosen = sorted(fit.min(axis=1).sort_values(ascending=False, kind="stable").index[:MOST])
    left = [f"{count} {words}" for words, count in why[why != ""].value_counts().items()]
    left += [f"{len(fit) - MOST} would add little"] if len(fit) > MOST else []
    return Mailings([_start(day, calendar) for day in chosen], reached, left)


def before(moment: datetime, calendar: Calendar, days: int = DAYS) -> datetime:
    """The start of the day so many days before."""
    return calendar.day_start(calendar.days_back(moment) + days)


def _reached(shop: Shop, calendar: Calendar) -> pd.DataFrame:
    """Who was reached on which day, and the day on which what reached them began to go out."""
    met = interactions.happened(shop, engagement.REACHING, as_of=calendar.as_of)
    on = _days(met["happened_at"], calendar)
    begun = on.groupby(met["campaign_id"]).transform("min")
    together = begun.notna() & (on - begun < pd.Timedelta(days=SENDING_DAYS))
    told = pd.DataFrame(
        {"customer_key": met["customer_key"].astype("int64"), "day": on.where(~together, begun), "on": on}
    )
    return told.drop_duplicates(ignore_index=True)


def _counted(reached: pd.DataFrame, world: World) -> pd.DataFrame:
    """How many of those known on each mailing's day it reached and left out: contacted, others."""
    first = world.purchases.groupby("customer_key")["day"].min()
    told = reached[["day", "customer_key"]].drop_duplicates()
    told = told[told["day"] > told["customer_key"].map(first)]
    days = np.sort(reached["day"].unique())
    contacted = told.groupby("day").size().reindex(days, fill_value=0)
    known = np.searchsorted(np.sort(first.to_numpy()), days)
    return pd.DataFrame({"contacted": contacted, "others": known - contacted})


def _unfit(row: pd.Series, calendar: Calendar) -> str:
    """Why a mailing cannot be looked back on, in words; empty where it can."""
    day: date = row["day"].date()
    share = row["contacted"] / max(row["contacted"] + row["others"], 1)
    if day < calendar.first_day + timedelta(days=2 * DAYS):
        return f"went out within {2 * DAYS} days of the first sale"
    if day + timedelta(days=DAYS) > calendar.known_until:
        return f"went out less than {DAYS} days ago"
    if share > OVERLAP[1] or row["others"] < LEAST:
        return "went to everybody or nearly so"
    return "went to too few" if share < OVERLAP[0] or row["contacted"] < LEAST else ""


def _nothing(why: pd.Series) -> str:
    told = "; ".join(f"{count} {words}" for words, count in why.value_counts().items())
    return (
        f"no mailing can be compared with its absence: of {len(why)}, {told}. Leave some customers out of the next "
        f"campaign, drawn by lot, at least {FEWEST} of either kind, and ask again {DAYS} days later"
    )


def _days(instants: pd.Series, calendar: Calendar) -> pd.Series:
    """The shop's days of instants, as midnights without a zone, like those of purchases."""
    return instants.dt.tz_convert(calendar.timezone).dt.tz_localize(None).dt.normalize().astype("datetime64[us]")


def _start(day: pd.Timestamp, calendar: Calendar) -> datetime:
    return calendar.day_start((calendar.known_until - day.date()).days)
