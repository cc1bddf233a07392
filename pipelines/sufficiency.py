"""Sufficiency: whether a shop knows enough for each model, how much it knows, and what it is served meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from customers import clock, mirror
from customers.shop import Shop
from features import snapshot
from models import baselines, offers, recommender, restock, spending, stocks, timing
from pipelines.evening import Past, outlook
from pipelines.failures import NothingToDo
from training import labels, plans
from training.plans import World
from training.train import JUDGES


@dataclass(frozen=True, slots=True)
class Need:
    """One thing a model learns from: how much of it is needed, and how much of it the shop has."""

    model: str
    what: str
    needed: int
    found: int
    instead: str

    @property
    def enough(self) -> bool:
        """Whether the model can learn."""
        return self.found >= self.needed


@dataclass(frozen=True)
class Outlook:
    """What is counted: the shop's world, what its campaigns came to, and every purchase from a category."""

    world: World
    past: Past
    category_days: pd.DataFrame

    def moments(self, days: int) -> list[datetime]:
        """The moments that are learned from, so many days of each of which are over when the last window begins."""
        calendar = self.world.calendar
        asked = labels.moments(calendar, [plan.window(self.world) for plan in plans.PLANS if not plan.spread])
        return [moment for moment in asked if calendar.days_back(moment) >= 2 * days]

    def before(self, moment: datetime) -> pd.DataFrame:
        """Whoever had bought before a moment: customer_key, as_of, recency_days."""
        day = pd.Timestamp(self.world.calendar.day_of(moment))
        bought = self.world.purchases[self.world.purchases["day"] < day]
        last = bought.groupby("customer_key")["day"].max()
        rows = pd.DataFrame({"customer_key": last.index, "recency_days": (day - last).dt.days.to_numpy()})
        return rows.assign(as_of=pd.Timestamp(moment).tz_convert("UTC"))


def of(shop: Shop) -> list[dict[str, Any]]:
    """A row a model and thing that it needs: model, what, needed, found, enough, instead; from today's records.

    What is learned from lies before the last window, which the model is judged on.
    """
    mirror.refresh(shop)
    now = clock.now(shop)
    if snapshot.purchases(shop.home / "ledger", as_of=now, timezone=shop.timezone).empty:
        raise NothingToDo("nothing has been sold yet; run: regulars load transactions FILE")
    world, past = outlook(shop, now)
    start = world.calendar.back(world.calendar.history_days)
    days = snapshot.category_days(shop.home / "ledger", as_of=now, timezone=shop.timezone, start=start)
    seen = Outlook(world, past, days)
    return [asdict(need) | {"enough": need.enough} for count in COUNTS for need in count(seen)]


def _churn(seen: Outlook) -> list[Need]:
    plan, days = plans.plan("churn"), seen.world.churn_days
    holdout = seen.world.calendar.back(days)
    learned = [_fates(seen, moment, days) for moment in seen.moments(days)]
    judged = _fates(seen, holdout, days)
    return [
        Need("churn", f"times that an active customer came back within {days} days, and as many that one did not",
             baselines.FEWEST, min(np.sum(learned, axis=0).tolist(), default=0), plan.baselines[-1]),
        Need("churn", "active customers to judge on", JUDGES, sum(judged), plan.baselines[-1]),
    ]  # fmt: skip


def _fates(seen: Outlook, moment: datetime, days: int) -> tuple[int, int]:
    """How many active customers came back within so many days from a moment, and how many did not."""
    rows = seen.before(moment)
    rows = rows[rows["recency_days"] <= 2 * days]
    quiet = labels.gone_quiet(rows, seen.world.purchases, days=days, calendar=seen.world.calendar)
    return int((quiet == 0).sum()), int((quiet == 1).sum())


def _timing(seen: Outlook) -> list[Need]:
    plan = plans.plan("timing")
    days = plan.window(seen.world)
    came = sum(_fates(seen, moment, days)[0] for moment in seen.moments(days))
    words = f"times that a customer came back within {days} days"
    return [Need("timing", words, timing.FEWEST, came, plan.baselines[-1])]


def _value(seen: Outlook) -> list[Need]:
    plan, calendar = plans.plan("value"), seen.world.calendar
    days = plan.window(seen.world)
    spent = sum(
        int((labels.spent_next(seen.before(moment), seen.world.purchases, days=days, calendar=calendar) > 0).sum())
        for moment in seen.moments(days)
    )
    words = f"times that a customer spent something within {days} days"
    return [Need("value", words, spending.FEWEST, spent, plan.baselines[-1])]


def _restock(seen: Outlook) -> list[Need]:
    plan, calendar = plans.plan("restock"), seen.world.calendar
    moment = calendar.back(2 * plan.window(seen.world))
    before = seen.category_days[seen.category_days["day"] < pd.Timestamp(calendar.day_of(moment))]
    needs = before.groupby(["customer_key", "category"], as_index=False).size()
    needs = needs[needs["size"] >= stocks.NEED_TIMES].assign(as_of=pd.Timestamp(moment).tz_convert("UTC"))
    week = (plans.RESTOCK_DAYS[0],)
    came = labels.needed_next(needs, seen.category_days, within=week, calendar=calendar)[f"within_{week[0]}"]
    words = f"needs that came up within {week[0]} days, and as many that did not, to learn from"
    found = min(int((came == 1).sum()), int((came == 0).sum()))
    return [Need("restock", words, restock.FEWEST, found, plan.baselines[-1])]


def _recommender(seen: Outlook) -> list[Need]:
    plan, world = plans.plan("recommender"), seen.world
    window = plan.window(world)
    first = pd.Timestamp(world.calendar.day_of(world.calendar.back(2 * window)))
    bought = world.purchases["day"].between(first, first + pd.Timedelta(days=window), inclusive="left")
    found = int(world.purchases.loc[bought, "customer_key"].nunique())
    words = f"customers who bought in the {window} days before the last {window}, to learn from"
    return [Need("recommender", words, recommender.ENOUGH, found, plan.baselines[-1])]


def _offers(seen: Outlook) -> list[Need]:
    redeemed = len(seen.past.redemptions)
    passed = max(len(seen.past.wanted) - redeemed, 0)
    words = "offers that were redeemed, and as many that were received and not redeemed, to learn from"
    return [Need("offers", words, offers.FEWEST, min(redeemed, passed), plans.plan("offers").baselines[-1])]


def _season(seen: Outlook) -> list[Need]:
    needed = labels.YEAR_DAYS + max(seen.world.churn_days, plans.plan("value").window(seen.world))
    words = "days of history, for last year's season to be known"
    return [Need("season", words, needed, seen.world.calendar.history_days, "the latest weeks")]


COUNTS: tuple[Callable[[Outlook], list[Need]], ...] = (
    *(_recommender, _offers, _churn, _timing),
    *(_restock, _value, _season),
)
