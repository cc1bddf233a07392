"""Data sufficiency: what each model needs to learn, how much of it the shop has, and what is served meanwhile."""

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
from models.survival.outcomes import MIN_OUTCOMES
from models.timing import model as timing_model
from models.value.outcomes import MIN_BUYERS
from pipelines.errors import NothingToDo
from pipelines.nightly.run_context import filter_for_training
from pipelines.nightly.training_data import CampaignHistory, load_training_data
from training import labels
from training.calendar import training_cutoffs
from training.tasks import all_tasks, restock
from training.tasks.task import TrainingData
from training.train import MIN_HOLDOUT_CUSTOMERS

SEASON = "season"


@dataclass(frozen=True, slots=True)
class DataRequirement:
    """One requirement of a model: what it counts, how many are needed, how many the shop has, and what is served else.

    `instead` is the learner id of the baseline that is served while there is too little.
    """

    model: str
    what: str
    needed: int
    found: int
    instead: str

    @property
    def is_enough(self) -> bool:
        """Whether the requirement is met."""
        return self.found >= self.needed


@dataclass(frozen=True)
class AvailableData:
    """The data that requirements are counted on: training data, campaigns and purchase days by category.

    `category_days` has columns customer_key, category, day.
    """

    training_data: TrainingData
    campaigns: CampaignHistory
    category_days: pd.DataFrame

    def learning_cutoffs(self, days_back: int) -> list[datetime]:
        """The training cutoffs at least `days_back` days before the run."""
        calendar = self.training_data.calendar
        windows = [task.holdout_days(self.training_data) for task in all_tasks.TASKS if not task.is_event_based]
        cutoffs = training_cutoffs(calendar, windows)
        return [cutoff for cutoff in cutoffs if calendar.days_before_run(cutoff) >= days_back]

    def customers_before(self, cutoff: datetime) -> pd.DataFrame:
        """Customers with a purchase before the day of `cutoff`: columns customer_key, recency_days, as_of."""
        day = pd.Timestamp(self.training_data.calendar.local_day(cutoff))
        bought = self.training_data.purchases[self.training_data.purchases["day"] < day]
        last = bought.groupby("customer_key")["day"].max()
        rows = pd.DataFrame({"customer_key": last.index, "recency_days": (day - last).dt.days.to_numpy()})
        return rows.assign(as_of=pd.Timestamp(cutoff).tz_convert("UTC"))


def check_sufficiency(shop: Shop) -> list[dict[str, Any]]:
    """Each requirement of every model as a dict of model, what, needed, found, enough, instead; on today's records.

    What a model learns from lies before its last window, which it is evaluated on. Raises NothingToDo where nothing has
    been sold.
    """
    mirror.refresh(shop)
    now = clock.now(shop)
    if snapshot.load_purchases(shop.ledger, as_of=now, timezone=shop.timezone).empty:
        raise NothingToDo("nothing has been sold yet; run: regulars load transactions FILE")
    dataset, campaigns = load_training_data(shop, now)
    start = dataset.calendar.cutoff_before(dataset.calendar.history_days)
    category_days = snapshot.load_category_days(shop.ledger, as_of=now, timezone=shop.timezone, start=start)
    available = _filter_for_training(shop, AvailableData(dataset, campaigns, category_days))
    return [
        asdict(requirement) | {"enough": requirement.is_enough} for check in CHECKS for requirement in check(available)
    ]


def is_sufficient(requirements: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every model can be trained; the season of last year is not required."""
    return all(requirement["enough"] for requirement in requirements if requirement["model"] != SEASON)


def _filter_for_training(shop: Shop, available: AvailableData) -> AvailableData:
    """The same data of the customers on whom a nightly run would train."""
    received, redeemed = filter_for_training(shop, available.campaigns.received), available.campaigns.redemptions
    redeemed = redeemed[redeemed["customer_key"].isin(received["customer_key"])]
    return AvailableData(
        replace(available.training_data, purchases=filter_for_training(shop, available.training_data.purchases)),
        replace(available.campaigns, received=received, redemptions=redeemed),
        filter_for_training(shop, available.category_days),
    )


def _churn_requirements(available: AvailableData) -> list[DataRequirement]:
    task, days = all_tasks.get_task("churn"), available.training_data.churn_days
    holdout = available.training_data.calendar.cutoff_before(days)
    learning_counts = [_count_outcomes(available, cutoff, days) for cutoff in available.learning_cutoffs(2 * days)]
    holdout_counts = _count_outcomes(available, holdout, days)
    instead = task.baselines[-1]
    what = f"times that an active customer came back within {days} days, and as many that one did not"
    return [
        DataRequirement("churn", what, MIN_OUTCOMES, _count_rarer_outcome(learning_counts), instead),
        DataRequirement("churn", "active customers to judge on", MIN_HOLDOUT_CUSTOMERS, sum(holdout_counts), instead),
    ]


def _count_rarer_outcome(counts: Sequence[tuple[int, int]]) -> int:
    """The count of the rarer of two outcomes, summed over all cutoffs."""
    return int(np.reshape(counts, (-1, 2)).sum(axis=0).min())


def _count_outcomes(available: AvailableData, cutoff: datetime, days: int) -> tuple[int, int]:
    """Counts of active customers who came back within `days` after the cutoff, and who did not."""
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
    what = f"times that a customer came back within {days} days, and before the last {window} days"
    return [DataRequirement("timing", what, timing_model.MIN_PURCHASES, return_count, task.baselines[-1])]


def _count_returns(available: AvailableData, cutoff: datetime, window: int, days: int) -> int:
    """The count of customers who came back within `days` after the cutoff and before the last `window` days."""
    calendar = available.training_data.calendar
    until = calendar.local_day(calendar.cutoff_before(window))
    durations = labels.time_to_next_purchase(
        available.customers_before(cutoff), available.training_data.purchases, calendar=calendar, until=until
    )
    return int(kaplan_meier.read_durations(durations, days)[1].sum())


def _value_requirements(available: AvailableData) -> list[DataRequirement]:
    task, calendar = all_tasks.get_task("value"), available.training_data.calendar
    days = task.holdout_days(available.training_data)
    purchases = available.training_data.purchases
    spend_by_cutoff = (
        labels.spend_within(available.customers_before(cutoff), purchases, days=days, calendar=calendar)
        for cutoff in available.learning_cutoffs(2 * days)
    )
    buyer_count = sum(int((spend > 0).sum()) for spend in spend_by_cutoff)
    what = f"times that a customer spent something within {days} days"
    return [DataRequirement("value", what, MIN_BUYERS, buyer_count, task.baselines[-1])]


def _restock_requirements(available: AvailableData) -> list[DataRequirement]:
    task, calendar = all_tasks.get_task("restock"), available.training_data.calendar
    days_back = [windows * task.holdout_days(available.training_data) for windows in (3, 2)]
    counts = [
        _count_needs(available, calendar.cutoff_before(days)) for days in days_back if days < calendar.history_days
    ]
    what = f"needs that came up within {restock.RESTOCK_DAYS[0]} days, and as many that did not, to learn from"
    return [
        DataRequirement("restock", what, restock_model.MIN_OUTCOMES, _count_rarer_outcome(counts), task.baselines[-1])
    ]


def _count_needs(available: AvailableData, cutoff: datetime) -> tuple[int, int]:
    """Counts of replenishment categories bought again within the shortest horizon after the cutoff, and not."""
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
    bought_again = label[f"within_{week}"]
    return int((bought_again == 1).sum()), int((bought_again == 0).sum())


def _recommender_requirements(available: AvailableData) -> list[DataRequirement]:
    task, training_data = all_tasks.get_task("recommender"), available.training_data
    window = task.holdout_days(training_data)
    first = pd.Timestamp(training_data.calendar.local_day(training_data.calendar.cutoff_before(2 * window)))
    bought = training_data.purchases["day"].between(first, first + pd.Timedelta(days=window), inclusive="left")
    buyer_count = int(training_data.purchases.loc[bought, "customer_key"].nunique())
    what = f"customers who bought in the {window} days before the last {window}, to learn from"
    return [DataRequirement("recommender", what, recommender_model.MIN_BUYERS, buyer_count, task.baselines[-1])]


def _offers_requirements(available: AvailableData) -> list[DataRequirement]:
    redeemed = len(available.campaigns.redemptions)
    unredeemed = max(len(available.campaigns.redeemable_offers) - redeemed, 0)
    what = "offers that were redeemed, and as many that were received and not redeemed, to learn from"
    instead = all_tasks.get_task("offers").baselines[-1]
    return [DataRequirement("offers", what, offers_model.MIN_OFFERS, min(redeemed, unredeemed), instead)]


def _season_requirements(available: AvailableData) -> list[DataRequirement]:
    needed = base.YEAR_DAYS + max(
        available.training_data.churn_days, all_tasks.get_task("value").holdout_days(available.training_data)
    )
    what = "days of history, for last year's season to be known"
    return [DataRequirement(SEASON, what, needed, available.training_data.calendar.history_days, "the latest weeks")]


CHECKS: tuple[Callable[[AvailableData], list[DataRequirement]], ...] = (
    *(_recommender_requirements, _offers_requirements, _churn_requirements, _timing_requirements),
    *(_restock_requirements, _value_requirements, _season_requirements),
)
