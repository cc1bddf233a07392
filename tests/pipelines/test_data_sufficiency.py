"""What a shop knows is counted as a night would learn from it."""

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
NOBODY = pd.DataFrame({"customer_key": pd.Series(dtype="int64"), "offer_key": pd.Series(dtype="int64")})


def counted(days: pd.DataFrame, *, history: int = DAYS) -> AvailableData:
    """A shop that sold this: customer_key, category, and the day, counted from its first."""
    calendar = training_calendar.TrainingCalendar(FIRST, NOW - timedelta(days=DAYS - history), "UTC")
    sold = days.assign(day=pd.Timestamp(FIRST) + pd.to_timedelta(days["day"], unit="D"))
    purchases = sold[["customer_key", "day"]].drop_duplicates().assign(spend=5.0)
    world = TrainingData(calendar, purchases, {}, churn_days=28, value_days=60)
    return AvailableData(world, CampaignHistory(offers.OfferCatalogue(NOBODY, NOBODY), NOBODY, NOBODY), sold)


def often(category: str, when: range, customers: int = 1) -> pd.DataFrame:
    rows = [(key, category, day) for key in range(customers) for day in when]
    return pd.DataFrame(rows, columns=["customer_key", "category", "day"])


def test_needs_are_counted_at_both_moments_and_only_those_that_a_season_has_not_outlived() -> None:
    weekly, ended = often("milk", range(0, DAYS, 7), 4), often("candles", range(0, 21, 7), 4)
    # Milk came up within the week both times. Candles did not; they were 102 days ago by the first, 130 by the second.
    seen = counted(pd.concat([weekly, ended]))
    assert data_sufficiency._count_needs(seen, seen.training_data.calendar.cutoff_before(84)) == (4, 4)
    assert data_sufficiency._count_needs(seen, seen.training_data.calendar.cutoff_before(56)) == (4, 0)
    assert data_sufficiency._restock_requirements(seen)[0].found == 4


def test_timing_counts_what_it_would_refuse_to_learn_from() -> None:
    seen = counted(often("milk", range(0, DAYS, 30), 3))
    calendar, rows = seen.training_data.calendar, []
    for moment in seen.learning_cutoffs(50):
        rows += [labels.time_to_next_purchase(seen.customers_before(moment), seen.training_data.purchases, calendar=calendar,
                                     until=calendar.local_day(calendar.cutoff_before(50)))]  # fmt: skip
    found = data_sufficiency._timing_requirements(seen)[0].found
    assert found > 0
    kaplan_meier.require_purchases(pd.concat(rows), 100, min_purchases=found)
    with pytest.raises(InsufficientData):
        kaplan_meier.require_purchases(pd.concat(rows), 100, min_purchases=found + 1)


def test_a_shop_of_one_day_knows_nothing_yet() -> None:
    seen = counted(often("milk", range(1), 3), history=1)
    needs = [
        need
        for count in (
            data_sufficiency._churn_requirements,
            data_sufficiency._timing_requirements,
            data_sufficiency._restock_requirements,
        )
        for need in count(seen)
    ]
    assert not any(need.is_enough for need in needs)


def test_a_shop_without_last_years_season_may_know_enough() -> None:
    told = [{"model": "churn", "enough": True}, {"model": "season", "enough": False}]
    assert data_sufficiency.is_sufficient(told)
    assert not data_sufficiency.is_sufficient([*told, {"model": "value", "enough": False}])


def opened(home: Path, export: Path) -> Shop:
    shop = setup.init_home(home, timezone="UTC", currency="EUR", now="last-sale")
    operations.load_records(shop, "transactions", [export], source="files")
    return shop


def test_who_does_not_allow_profiling_is_not_counted(tmp_path: Path, till: Callable[..., Path]) -> None:
    visits = [(customer, week) for customer in range(12) for week in range(30)]
    lines = [
        (f"o{customer}-{week}", 0, f"c{customer}", "p1", (FIRST + timedelta(days=7 * week)).isoformat(), 1, 5, 0)
        for customer, week in visits
    ]
    shop = opened(tmp_path / "home", till(*lines))
    found = {need["model"]: need["found"] for need in data_sufficiency.check_sufficiency(shop)}
    said = tmp_path / "consents.csv"
    refused = "".join(f"c{customer},profiling,denied,2025-01-01\n" for customer in range(6))
    said.write_text(f"customer_id,purpose,state,at\n{refused}")
    assert operations.load_records(shop, "consents", [said], source="files")["inserted"] == 6
    left = {need["model"]: need["found"] for need in data_sufficiency.check_sufficiency(shop)}
    assert found["value"] > 0
    assert {name: left[name] for name in ("timing", "value", "recommender")} == {
        name: found[name] // 2 for name in ("timing", "value", "recommender")
    }
