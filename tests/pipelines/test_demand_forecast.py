"""What the small grocer will sell: of everything on the shelf, by the way that erred least, to a file."""

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from customers import setup
from customers.shop import settings
from customers.shop.settings import Shop
from models.restock import demand_forecast
from pipelines import demand_forecast as pipelines_demand_forecast
from pipelines import operations
from pipelines.errors import NothingToDo


@pytest.fixture(scope="module")
def grocers(first_night_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    home = tmp_path_factory.mktemp("demand") / "home"
    shutil.copytree(first_night_home, home)
    return settings.open_shop(home)


def test_every_product_has_four_weeks_and_says_by_which_way(grocers: Shop, tmp_path: Path) -> None:
    out = tmp_path / "demand.csv"
    rows = operations.export_table(grocers, "demand", out)
    frame = pd.read_csv(out, parse_dates=["week_start"])
    assert len(frame) == rows
    assert list(frame.columns) == list(pipelines_demand_forecast.COLUMNS)
    assert (frame.groupby("product_id").size() == demand_forecast.WEEKS).all()
    starts = frame["week_start"].drop_duplicates().sort_values()
    assert starts.diff().dropna().eq(pd.Timedelta(days=7)).all()
    assert frame["method"].nunique() == 1
    assert frame["method"].iloc[0] in pipelines_demand_forecast.METHODS
    assert (frame["expected_units"] >= 0).all()
    weekly = frame[frame["week_start"] == starts.iloc[0]]
    assert weekly["expected_units"].sum() == pytest.approx(weekly["mean_4w_units"].sum(), rel=0.3)


def test_the_way_that_serves_erred_least_before(grocers: Shop) -> None:
    seen = pipelines_demand_forecast.load_sales_history(grocers)
    figures = pipelines_demand_forecast.backtest_methods(seen)
    assert set(figures["way"]) == set(pipelines_demand_forecast.METHODS), (
        "this shop's needs are known at every earlier month"
    )
    assert set(figures["weeks_back"]) == {4, 8}
    means = figures.groupby("way")[["products", "categories"]].mean().sum(axis=1)
    assert pipelines_demand_forecast.forecast_table(grocers)["method"].iloc[0] == means.idxmin()


def test_before_its_first_night_a_shop_goes_by_its_sales_alone(grocer: Callable[[Path], Shop], tmp_path: Path) -> None:
    young = grocer(tmp_path / "home")
    assert set(
        pipelines_demand_forecast.backtest_methods(pipelines_demand_forecast.load_sales_history(young))["way"]
    ) == {demand_forecast.LAST_WEEK, demand_forecast.MEAN_4_WEEKS, demand_forecast.CATEGORY_SHARED}
    assert len(pipelines_demand_forecast.forecast_table(young)) % demand_forecast.WEEKS == 0


def test_what_was_sold_longer_than_half_a_year_ago_alone_is_not_ordered_again(
    tmp_path: Path, till: Callable[..., Path]
) -> None:
    """Thirty weeks before the last sale the second product went for the last time: the earlier month knows it."""
    begun = date(2025, 1, 1)
    sold = [(7 * week, "milk") for week in range(40)] + [(7 * 9, "candles"), (7 * 8, "candles")]
    lines = [(f"o{n}", 0, "anna", name, (begun + timedelta(days=day)).isoformat(), 1, 5, 0)
             for n, (day, name) in enumerate(sold)]  # fmt: skip
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR", now="last-sale")
    operations.load_records(shop, "transactions", [till(*lines)], source="files")
    assert len(pipelines_demand_forecast.load_sales_history(shop).products) == 2
    assert set(pipelines_demand_forecast.forecast_table(shop)["product_id"]) == {"milk"}


def test_a_shop_without_sales_is_told_what_to_load(tmp_path: Path) -> None:
    empty = setup.init_home(tmp_path / "home", timezone="America/New_York", currency="USD", now="2025-07-01")
    with pytest.raises(NothingToDo, match="regulars load transactions"):
        pipelines_demand_forecast.forecast_table(empty)
