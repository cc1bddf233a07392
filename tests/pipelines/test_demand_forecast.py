"""The demand forecast of a small grocer: every current product, by the method with the smallest past error."""

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from customers import setup
from customers.shop import settings
from customers.shop.settings import Shop
from models.restock.demand_forecast import CATEGORY_SHARED, LAST_WEEK, MEAN_4_WEEKS, WEEKS
from pipelines import demand_forecast, operations
from pipelines.errors import NothingToDo


@pytest.fixture(scope="module")
def scored_shop(first_run_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    home = tmp_path_factory.mktemp("demand") / "home"
    shutil.copytree(first_run_home, home)
    return settings.open_shop(home)


def test_every_product_has_four_weeks_and_one_method(scored_shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "demand.csv"
    rows = operations.export_table(scored_shop, "demand", out)
    frame = pd.read_csv(out, parse_dates=["week_start"])
    assert len(frame) == rows
    assert list(frame.columns) == list(demand_forecast.COLUMNS)
    assert (frame.groupby("product_id").size() == WEEKS).all()
    starts = frame["week_start"].drop_duplicates().sort_values()
    assert starts.diff().dropna().eq(pd.Timedelta(days=7)).all()
    assert frame["method"].nunique() == 1
    assert frame["method"].iloc[0] in demand_forecast.METHODS
    assert (frame["expected_units"] >= 0).all()
    weekly = frame[frame["week_start"] == starts.iloc[0]]
    assert weekly["expected_units"].sum() == pytest.approx(weekly["mean_4w_units"].sum(), rel=0.3)


def test_the_method_used_has_the_smallest_past_error(scored_shop: Shop) -> None:
    history = demand_forecast.load_sales_history(scored_shop)
    errors = demand_forecast.backtest_methods(history)
    assert set(errors["way"]) == set(demand_forecast.METHODS), "replenishment needs exist for every earlier month"
    assert set(errors["weeks_back"]) == {4, 8}
    means = errors.groupby("way")[["products", "categories"]].mean().sum(axis=1)
    assert demand_forecast.forecast_table(scored_shop)["method"].iloc[0] == means.idxmin()


def test_before_the_first_nightly_run_only_sales_are_used(
    new_small_shop: Callable[[Path], Shop], tmp_path: Path
) -> None:
    unscored = new_small_shop(tmp_path / "home")
    assert set(demand_forecast.backtest_methods(demand_forecast.load_sales_history(unscored))["way"]) == {
        LAST_WEEK,
        MEAN_4_WEEKS,
        CATEGORY_SHARED,
    }
    assert len(demand_forecast.forecast_table(unscored)) % WEEKS == 0


def test_a_product_unsold_for_half_a_year_is_not_forecast(tmp_path: Path, till: Callable[..., Path]) -> None:
    """The second product was last sold thirty weeks before the last sale; only the earlier month includes it."""
    first_day = date(2025, 1, 1)
    sales = [(7 * week, "milk") for week in range(40)] + [(7 * 9, "candles"), (7 * 8, "candles")]
    lines = [(f"o{n}", 0, "anna", name, (first_day + timedelta(days=day)).isoformat(), 1, 5, 0)
             for n, (day, name) in enumerate(sales)]  # fmt: skip
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR", now="last-sale")
    operations.load_records(shop, "transactions", [till(*lines)], source="files")
    assert len(demand_forecast.load_sales_history(shop).products) == 2
    assert set(demand_forecast.forecast_table(shop)["product_id"]) == {"milk"}


def test_without_sales_the_error_names_the_load_command(tmp_path: Path) -> None:
    empty = setup.init_home(tmp_path / "home", timezone="America/New_York", currency="USD", now="2025-07-01")
    with pytest.raises(NothingToDo, match="regulars load transactions"):
        demand_forecast.forecast_table(empty)
