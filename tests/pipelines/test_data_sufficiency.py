"""Data sufficiency: outcomes are counted in the way a nightly run would train on them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from customers import setup
from customers.marketing import offers
from customers.shop.settings import Shop
from models.base import InsufficientData
from models.survival import kaplan_meier
from pipelines import data_sufficiency, operations
from pipelines.data_sufficiency import AvailableData
from pipelines.nightly.training_data import CampaignHistory
from training import calendar as training_calendar
from training import labels
from training.tasks.task import TrainingData

FIRST, DAYS = date(2025, 1, 6), 200
NOW = datetime(2025, 1, 6, tzinfo=UTC) + timedelta(days=DAYS)
NO_OFFERS = pd.DataFrame({"customer_key": pd.Series(dtype="int64"), "offer_key": pd.Series(dtype="int64")})


def available_data(days: pd.DataFrame, *, history: int = DAYS) -> AvailableData:
    """The data of a shop with these sales: customer_key, category, and the day, counted from its first."""
    calendar = training_calendar.TrainingCalendar(FIRST, NOW - timedelta(days=DAYS - history), "UTC")
    sold = days.assign(day=pd.Timestamp(FIRST) + pd.to_timedelta(days["day"], unit="D"))
    purchases = sold[["customer_key", "day"]].drop_duplicates().assign(spend=5.0)
    training_data = TrainingData(calendar, purchases, {}, churn_days=28, value_days=60)
    return AvailableData(
        training_data, CampaignHistory(offers.OfferCatalogue(NO_OFFERS, NO_OFFERS), NO_OFFERS, NO_OFFERS), sold
    )


def regular_purchases(category: str, days: range, customers: int = 1) -> pd.DataFrame:
    """Every customer buys the category on each of these days; columns customer_key, category, day."""
    rows = [(key, category, day) for key in range(customers) for day in days]
    return pd.DataFrame(rows, columns=["customer_key", "category", "day"])


def test_replenishment_needs_are_counted_at_both_cutoffs_without_expired_ones() -> None:
    weekly, ended = regular_purchases("milk", range(0, DAYS, 7), 4), regular_purchases("candles", range(0, 21, 7), 4)
    # Milk was bought within the week after both cutoffs. Candles were not: they were bought 102 and 130 days before.
    available = available_data(pd.concat([weekly, ended]))
    assert data_sufficiency._count_needs(available, available.training_data.calendar.cutoff_before(84)) == (4, 4)
    assert data_sufficiency._count_needs(available, available.training_data.calendar.cutoff_before(56)) == (4, 0)
    assert data_sufficiency._restock_requirements(available)[0].found == 4


def test_the_timing_count_agrees_with_the_limit_of_its_training() -> None:
    available = available_data(regular_purchases("milk", range(0, DAYS, 30), 3))
    calendar, rows = available.training_data.calendar, []
    for cutoff in available.learning_cutoffs(50):
        until = calendar.local_day(calendar.cutoff_before(50))
        customers, purchases = available.customers_before(cutoff), available.training_data.purchases
        rows += [labels.time_to_next_purchase(customers, purchases, calendar=calendar, until=until)]
    count = data_sufficiency._timing_requirements(available)[0].found
    assert count > 0
    kaplan_meier.require_purchases(pd.concat(rows), 100, min_purchases=count)
    with pytest.raises(InsufficientData):
        kaplan_meier.require_purchases(pd.concat(rows), 100, min_purchases=count + 1)


def test_a_shop_of_one_day_has_too_few_data() -> None:
    available = available_data(regular_purchases("milk", range(1), 3), history=1)
    requirements = [
        requirement
        for list_requirements in (
            data_sufficiency._churn_requirements,
            data_sufficiency._timing_requirements,
            data_sufficiency._restock_requirements,
        )
        for requirement in list_requirements(available)
    ]
    assert not any(requirement.is_enough for requirement in requirements)


def test_data_can_suffice_without_last_years_season() -> None:
    requirements = [{"model": "churn", "enough": True}, {"model": "season", "enough": False}]
    assert data_sufficiency.is_sufficient(requirements)
    assert not data_sufficiency.is_sufficient([*requirements, {"model": "value", "enough": False}])


def create_shop(home: Path, export: Path) -> Shop:
    shop = setup.init_home(home, timezone="UTC", currency="EUR", now="last-sale")
    operations.load_records(shop, "transactions", [export], source="files")
    return shop


def test_customers_who_refuse_profiling_are_not_counted(tmp_path: Path, till: Callable[..., Path]) -> None:
    visits = [(customer, week) for customer in range(12) for week in range(30)]
    lines = [
        (f"o{customer}-{week}", 0, f"c{customer}", "p1", (FIRST + timedelta(days=7 * week)).isoformat(), 1, 5, 0)
        for customer, week in visits
    ]
    shop = create_shop(tmp_path / "home", till(*lines))
    before = {row["model"]: row["found"] for row in data_sufficiency.check_sufficiency(shop)}
    consents = tmp_path / "consents.csv"
    refused = "".join(f"c{customer},profiling,denied,2025-01-01\n" for customer in range(6))
    consents.write_text(f"customer_id,purpose,state,at\n{refused}")
    assert operations.load_records(shop, "consents", [consents], source="files")["inserted"] == 6
    after = {row["model"]: row["found"] for row in data_sufficiency.check_sufficiency(shop)}
    assert before["value"] > 0
    assert {name: after[name] for name in ("timing", "value", "recommender")} == {
        name: before[name] // 2 for name in ("timing", "value", "recommender")
    }
