"""Sufficiency: whether a shop knows enough for each model, how much it knows, and what it is served meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from customers import clock
from customers.parquet import mirror
from customers.shop.settings import Shop
from features.snapshots import snapshot
from models import base
from models.offers import model as offers_model
from models.recommender import model as recommender_model
from models.restock import category_bg_nbd
from models.restock import model as restock_model
from models.survival import kaplan_meier
from models.survival import outcomes as survival_outcomes
from models.timing import model as timing_model
from models.value import outcomes as value_outcomes
from pipelines.errors import NothingToDo
from pipelines.nightly import training_data
from pipelines.nightly.training_data import CampaignHistory
from pipelines.nightly.run_context import filter_profiling_allowed
from training import calendar as training_calendar
from training import labels
from training.tasks import all_tasks, restock
from training.tasks.task import TrainingData
from training.train import MIN_HOLDOUT_CUSTOMERS

SEASON = "season"


@dataclass(frozen=True, slots=True)
class DataRequirement:
    """One thing a model learns from: how much of it is needed, and how much of it the shop has."""

    model: str
    what: str
    needed: int
    found: int
    instead: str

    @property
    def is_enough(self) -> bool:
        """Whether the model can learn."""
        return self.found >= self.needed


@dataclass(frozen=True)
class AvailableData:
    """What is counted, of customers who allow it: the shop's world, its campaigns, every purchase from a category."""

    training_data: TrainingData
    campaigns: CampaignHistory
    category_days: pd.DataFrame

    def learning_cutoffs(self, days_back: int) -> list[datetime]:
        """The moments that are learned from, so many days ago or longer."""
        calendar = self.training_data.calendar
        cutoffs = training_calendar.training_cutoffs(
            calendar, [task.holdout_days(self.training_data) for task in all_tasks.TASKS if not task.is_event_based]
        )
        return [cutoff for cutoff in cutoffs if calendar.days_before_run(cutoff) >= days_back]

    def customers_before(self, cutoff: datetime) -> pd.DataFrame:
        """Whoever had bought before a moment: customer_key, as_of, recency_days."""
        day = pd.Timestamp(self.training_data.calendar.local_day(cutoff))
        bought = self.training_data.purchases[self.training_data.purchases["day"] < day]
        last = bought.groupby("customer_key")["day"].max()
        rows = pd.DataFrame({"customer_key": last.index, "recency_days": (day - last).dt.days.to_numpy()})
        return rows.assign(as_of=pd.Timestamp(cutoff).tz_convert("UTC"))


def check_sufficiency(shop: Shop) -> list[dict[str, Any]]:
    """A row a model and thing that it needs: model, what, needed, found, enough, instead; from today's records.

    What is learned from lies before the last window, which the model is judged on.
    """
    mirror.refresh(shop)
    now = clock.now(shop)
    if snapshot.load_purchases(shop.home / "ledger", as_of=now, timezone=shop.timezone).empty:
        raise NothingToDo("nothing has been sold yet; run: regulars load transactions FILE")
    dataset, campaigns = training_data.load_training_data(shop, now)
    start = dataset.calendar.cutoff_before(dataset.calendar.history_days)
    category_days = snapshot.load_category_days(shop.home / "ledger", as_of=now, timezone=shop.timezone, start=start)
    available = _filter_profiling_allowed(shop, AvailableData(dataset, campaigns, category_days))
    return [
        asdict(requirement) | {"enough": requirement.is_enough} for check in CHECKS for requirement in check(available)
    ]


def is_sufficient(requirements: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every model can learn; without last year's season they learn all the same."""
    return all(requirement["enough"] for requirement in requirements if requirement["model"] != SEASON)


def _filter_profiling_allowed(shop: Shop, available: AvailableData) -> AvailableData:
    """The same of those whom a night would learn from."""
    received, redeemed = filter_profiling_allowed(shop, available.campaigns.received), available.campaigns.redemptions
    redeemed = redeemed[redeemed["customer_key"].isin(received["customer_key"])]
    return AvailableData(
        replace(available.training_data, purchases=filter_profiling_allowed(shop, available.training_data.purchases)),
        replace(available.campaigns, received=received, redemptions=redeemed),
        filter_profiling_allowed(shop, available.category_days),
    )


def _churn_requirements(available: AvailableData) -> list[DataRequirement]:
    task, days = all_tasks.get_task("churn"), available.training_data.churn_days
    holdout = available.training_data.calendar.cutoff_before(days)
    learning_counts = [_count_outcomes(available, cutoff, days) for cutoff in available.learning_cutoffs(2 * days)]
    holdout_counts = _count_outcomes(available, holdout, days)
    return [
        DataRequirement("churn", f"times that an active customer came back within {days} days, and as many that one did not",
             survival_outcomes.MIN_OUTCOMES, _count_rarer_outcome(learning_counts), task.baselines[-1]),
        DataRequirement("churn", "active customers to judge on", MIN_HOLDOUT_CUSTOMERS, sum(holdout_counts), task.baselines[-1]),
    ]  # fmt: skip


def _count_rarer_outcome(counts: Sequence[tuple[int, int]]) -> int:
    """How many there are of the rarer fate, over all moments."""
    return int(np.reshape(counts, (-1, 2)).sum(axis=0).min())


def _count_outcomes(available: AvailableData, cutoff: datetime, days: int) -> tuple[int, int]:
    """How many active customers came back within so many days from a moment, and how many did not."""
    rows = available.customers_before(cutoff)
    rows = rows[rows["recency_days"] <= 2 * days]
    churned = labels.churned(
        rows, available.training_data.purchases, days=days, calendar=available.training_data.calendar
    )
    return int((churned == 0).sum()), int((churned == 1).sum())


def _timing_requirements(available: AvailableData) -> list[DataRequirement]:
    task = all_tasks.get_task("timing")
    window, days = task.holdout_days(available.training_data), task.settings(available.training_data)["days"]
    return_count = sum(_count_returns(available, cutoff, window, days) for cutoff in available.learning_cutoffs(window))
    words = f"times that a customer came back within {days} days, and before the last {window} days"
    return [DataRequirement("timing", words, timing_model.MIN_PURCHASES, return_count, task.baselines[-1])]


def _count_returns(available: AvailableData, cutoff: datetime, window: int, days: int) -> int:
    """How many customers came back within so many days from a moment, and before the last window began."""
    calendar = available.training_data.calendar
    until = calendar.local_day(calendar.cutoff_before(window))
    durations = labels.time_to_next_purchase(
        available.customers_before(cutoff), available.training_data.purchases, calendar=calendar, until=until
    )
    return int(kaplan_meier.read_durations(durations, days)[1].sum())


def _value_requirements(available: AvailableData) -> list[DataRequirement]:
    task, calendar = all_tasks.get_task("value"), available.training_data.calendar
    days = task.holdout_days(available.training_data)
    spent = sum(
        int(
            (
                labels.spend_within(
                    available.customers_before(cutoff), available.training_data.purchases, days=days, calendar=calendar
                )
                > 0
            ).sum()
        )
        for cutoff in available.learning_cutoffs(2 * days)
    )
    words = f"times that a customer spent something within {days} days"
    return [DataRequirement("value", words, value_outcomes.MIN_BUYERS, spent, task.baselines[-1])]


def _restock_requirements(available: AvailableData) -> list[DataRequirement]:
    task, calendar = all_tasks.get_task("restock"), available.training_data.calendar
    back = [windows * task.holdout_days(available.training_data) for windows in (3, 2)]
    each = [_count_needs(available, calendar.cutoff_before(days)) for days in back if days < calendar.history_days]
    words = f"needs that came up within {restock.RESTOCK_DAYS[0]} days, and as many that did not, to learn from"
    return [
        DataRequirement("restock", words, restock_model.MIN_OUTCOMES, _count_rarer_outcome(each), task.baselines[-1])
    ]


def _count_needs(available: AvailableData, cutoff: datetime) -> tuple[int, int]:
    """How many needs of a moment came up within the shortest span, and how many did not."""
    calendar, today = available.training_data.calendar, pd.Timestamp(available.training_data.calendar.local_day(cutoff))
    before = available.category_days[available.category_days["day"] < today]
    pairs = before.groupby(["customer_key", "category"])["day"].agg(["size", "max"]).reset_index()
    pairs = pairs.assign(
        **{
            category_bg_nbd.NEED_TIMES_COLUMN: pairs["size"],
            category_bg_nbd.NEED_RECENCY_COLUMN: (today - pairs["max"]).dt.days,
        }
    )
    needs = pairs[category_bg_nbd.is_replenishment(pairs)].assign(as_of=pd.Timestamp(cutoff).tz_convert("UTC"))
    week = restock.RESTOCK_DAYS[0]
    until = calendar.local_day(
        calendar.cutoff_before(all_tasks.get_task("restock").holdout_days(available.training_data))
    )
    label = labels.repurchased_within(needs, available.category_days, horizons=(week,), calendar=calendar, until=until)
    is_needed = label[f"within_{week}"]
    return int((is_needed == 1).sum()), int((is_needed == 0).sum())


def _recommender_requirements(available: AvailableData) -> list[DataRequirement]:
    task, training_data = all_tasks.get_task("recommender"), available.training_data
    window = task.holdout_days(training_data)
    first = pd.Timestamp(training_data.calendar.local_day(training_data.calendar.cutoff_before(2 * window)))
    bought = training_data.purchases["day"].between(first, first + pd.Timedelta(days=window), inclusive="left")
    buyer_count = int(training_data.purchases.loc[bought, "customer_key"].nunique())
    words = f"customers who bought in the {window} days before the last {window}, to learn from"
    return [DataRequirement("recommender", words, recommender_model.MIN_BUYERS, buyer_count, task.baselines[-1])]


def _offers_requirements(available: AvailableData) -> list[DataRequirement]:
    redeemed = len(available.campaigns.redemptions)
    unredeemed = max(len(available.campaigns.redeemable_offers) - redeemed, 0)
    words = "offers that were redeemed, and as many that were received and not redeemed, to learn from"
    return [
        DataRequirement(
            "offers",
            words,
            offers_model.MIN_OFFERS,
            min(redeemed, unredeemed),
            all_tasks.get_task("offers").baselines[-1],
        )
    ]


def _season_requirements(available: AvailableData) -> list[DataRequirement]:
    needed = base.YEAR_DAYS + max(
        available.training_data.churn_days, all_tasks.get_task("value").holdout_days(available.training_data)
    )
    words = "days of history, for last year's season to be known"
    return [DataRequirement(SEASON, words, needed, available.training_data.calendar.history_days, "the latest weeks")]


CHECKS: tuple[Callable[[AvailableData], list[DataRequirement]], ...] = (
    *(_recommender_requirements, _offers_requirements, _churn_requirements, _timing_requirements),
    *(_restock_requirements, _value_requirements, _season_requirements),
)
