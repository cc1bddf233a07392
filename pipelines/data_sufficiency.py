"""Sufficiency: whether a shop knows enough for each model, how much it knows, and what it is served meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from customers import clock, mirror
from customers.shop import Shop
from features import snapshot
from models import fates, offers, recommender, restock, season, spending, stocks, timing
from pipelines import outlook
from pipelines.evening import allowing
from pipelines.failures import NothingToDo
from training import labels, plans
from training.plans import World
from training.train import JUDGES

SEASON = "season"


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
class Counted:
    """What is counted, of customers who allow it: the shop's world, its campaigns, every purchase from a category."""

    world: World
    past: outlook.Past
    category_days: pd.DataFrame

    def moments(self, days_back: int) -> list[datetime]:
        """The moments that are learned from, so many days ago or longer."""
        calendar = self.world.calendar
        asked = labels.moments(calendar, [plan.window(self.world) for plan in plans.PLANS if not plan.spread])
        return [moment for moment in asked if calendar.days_back(moment) >= days_back]

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
    world, past = outlook.of(shop, now)
    start = world.calendar.back(world.calendar.history_days)
    days = snapshot.category_days(shop.home / "ledger", as_of=now, timezone=shop.timezone, start=start)
    seen = _allowed(shop, Counted(world, past, days))
    return [asdict(need) | {"enough": need.enough} for count in COUNTS for need in count(seen)]


def enough(told: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every model can learn; without last year's season they learn all the same."""
    return all(need["enough"] for need in told if need["model"] != SEASON)


def _allowed(shop: Shop, seen: Counted) -> Counted:
    """The same of those whom a night would learn from."""
    received, redeemed = allowing(shop, seen.past.received), seen.past.redemptions
    redeemed = redeemed[redeemed["customer_key"].isin(received["customer_key"])]
    return Counted(
        replace(seen.world, purchases=allowing(shop, seen.world.purchases)),
        replace(seen.past, received=received, redemptions=redeemed),
        allowing(shop, seen.category_days),
    )


def _churn(seen: Counted) -> list[Need]:
    plan, days = plans.plan("churn"), seen.world.churn_days
    holdout = seen.world.calendar.back(days)
    learned = [_fates(seen, moment, days) for moment in seen.moments(2 * days)]
    judged = _fates(seen, holdout, days)
    return [
        Need("churn", f"times that an active customer came back within {days} days, and as many that one did not",
             fates.FEWEST, _rarer(learned), plan.baselines[-1]),
        Need("churn", "active customers to judge on", JUDGES, sum(judged), plan.baselines[-1]),
    ]  # fmt: skip


def _rarer(counts: Sequence[tuple[int, int]]) -> int:
    """How many there are of the rarer fate, over all moments."""
    return int(np.reshape(counts, (-1, 2)).sum(axis=0).min())


def _fates(seen: Counted, moment: datetime, days: int) -> tuple[int, int]:
    """How many active customers came back within so many days from a moment, and how many did not."""
    rows = seen.before(moment)
    rows = rows[rows["recency_days"] <= 2 * days]
    quiet = labels.gone_quiet(rows, seen.world.purchases, days=days, calendar=seen.world.calendar)
    return int((quiet == 0).sum()), int((quiet == 1).sum())


def _timing(seen: Counted) -> list[Need]:
    plan = plans.plan("timing")
    window, days = plan.window(seen.world), plan.settings(seen.world)["days"]
    came = sum(_returns(seen, moment, window, days) for moment in seen.moments(window))
    words = f"times that a customer came back within {days} days, and before the last {window} days"
    return [Need("timing", words, timing.FEWEST, came, plan.baselines[-1])]


def _returns(seen: Counted, moment: datetime, window: int, days: int) -> int:
    """How many customers came back within so many days from a moment, and before the last window began."""
    calendar = seen.world.calendar
    until = calendar.day_of(calendar.back(window))
    waits = labels.time_to_next(seen.before(moment), seen.world.purchases, calendar=calendar, until=until)
    return int(fates.durations(waits, days)[1].sum())


def _value(seen: Counted) -> list[Need]:
    plan, calendar = plans.plan("value"), seen.world.calendar
    days = plan.window(seen.world)
    spent = sum(
        int((labels.spent_next(seen.before(moment), seen.world.purchases, days=days, calendar=calendar) > 0).sum())
        for moment in seen.moments(2 * days)
    )
    words = f"times that a customer spent something within {days} days"
    return [Need("value", words, spending.FEWEST, spent, plan.baselines[-1])]


def _restock(seen: Counted) -> list[Need]:
    plan, calendar = plans.plan("restock"), seen.world.calendar
    back = [windows * plan.window(seen.world) for windows in (3, 2)]
    each = [_needs(seen, calendar.back(days)) for days in back if days < calendar.history_days]
    words = f"needs that came up within {plans.RESTOCK_DAYS[0]} days, and as many that did not, to learn from"
    return [Need("restock", words, restock.FEWEST, _rarer(each), plan.baselines[-1])]


def _needs(seen: Counted, moment: datetime) -> tuple[int, int]:
    """How many needs of a moment came up within the shortest span, and how many did not."""
    calendar, today = seen.world.calendar, pd.Timestamp(seen.world.calendar.day_of(moment))
    before = seen.category_days[seen.category_days["day"] < today]
    pairs = before.groupby(["customer_key", "category"])["day"].agg(["size", "max"]).reset_index()
    pairs = pairs.assign(**{stocks.TIMES: pairs["size"], stocks.SILENT: (today - pairs["max"]).dt.days})
    needs = pairs[stocks.is_need(pairs)].assign(as_of=pd.Timestamp(moment).tz_convert("UTC"))
    week = plans.RESTOCK_DAYS[0]
    until = calendar.day_of(calendar.back(plans.plan("restock").window(seen.world)))
    label = labels.needed_next(needs, seen.category_days, within=(week,), calendar=calendar, until=until)
    came = label[f"within_{week}"]
    return int((came == 1).sum()), int((came == 0).sum())


def _recommender(seen: Counted) -> list[Need]:
    plan, world = plans.plan("recommender"), seen.world
    window = plan.window(world)
    first = pd.Timestamp(world.calendar.day_of(world.calendar.back(2 * window)))
    bought = world.purchases["day"].between(first, first + pd.Timedelta(days=window), inclusive="left")
    found = int(world.purchases.loc[bought, "customer_key"].nunique())
    words = f"customers who bought in the {window} days before the last {window}, to learn from"
    return [Need("recommender", words, recommender.ENOUGH, found, plan.baselines[-1])]


def _offers(seen: Counted) -> list[Need]:
    redeemed = len(seen.past.redemptions)
    passed = max(len(seen.past.wanted) - redeemed, 0)
    words = "offers that were redeemed, and as many that were received and not redeemed, to learn from"
    return [Need("offers", words, offers.FEWEST, min(redeemed, passed), plans.plan("offers").baselines[-1])]


def _season(seen: Counted) -> list[Need]:
    needed = season.YEAR_DAYS + max(seen.world.churn_days, plans.plan("value").window(seen.world))
    words = "days of history, for last year's season to be known"
    return [Need(SEASON, words, needed, seen.world.calendar.history_days, "the latest weeks")]


COUNTS: tuple[Callable[[Counted], list[Need]], ...] = (
    *(_recommender, _offers, _churn, _timing),
    *(_restock, _value, _season),
)
