"""Demand forecast: units of each product in each of the next weeks, by the method that was best in recent months."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from customers import clock
from customers.catalogue import products as catalogue_products
from customers.ledger import watermark
from customers.privacy import consents
from customers.shop.settings import Shop
from features.families import category_history
from features.products import weekly_sales
from features.snapshots import snapshot
from models.base import Floats
from models.restock import demand_forecast
from models.restock.demand_forecast import HISTORY_WEEKS, WEEKS, WeeklySales
from pipelines.errors import NothingToDo
from training import calendar

COLUMNS = (
    "product_id", "category", "week_start", "expected_units", "last_week_units", "mean_4w_units", "method",
)  # fmt: skip
METHODS = (
    demand_forecast.LAST_WEEK,
    demand_forecast.MEAN_4_WEEKS,
    demand_forecast.CATEGORY_SHARED,
    demand_forecast.NEEDS_SHARED,
)
#: Past months (of WEEKS weeks) on which the methods are compared.
BACKTEST_MONTHS = 2
NEED_COLUMNS = ["times", "last_days", "first_days"]


@dataclass(frozen=True)
class SalesHistory:
    """Weekly sales of all products before `as_of`, and the purchases expected from customers' category histories.

    `products` has columns product_key, category, a row per product in the order of `sold`. `needs` holds expected
    purchases by category, by weeks before `as_of`.
    """

    as_of: datetime
    products: pd.DataFrame
    sold: WeeklySales
    needs: dict[int, Floats]

    def forecast_units(self, weeks_back: int, methods: tuple[str, ...] = METHODS) -> dict[str, Floats]:
        """Forecasts (n_products, WEEKS) of each method, made `weeks_back` weeks before `as_of`."""
        now, then = self.needs.get(weeks_back), self.needs.get(weeks_back + WEEKS)
        growth = None if now is None or then is None else demand_forecast.need_growth(now, then)
        return demand_forecast.forecast_units(self.sold.weeks_earlier(weeks_back), methods, growth)


def forecast_table(shop: Shop) -> pd.DataFrame:
    """Forecast of the products sold in the last half year, with columns COLUMNS, a row per product and week ahead.

    `method` had the smallest error in the last two months, over products and over categories. As of the latest run; a
    historical run changes nothing. Raises NothingToDo where nothing was sold in that half year.
    """
    history = load_sales_history(shop)
    forecasts, errors = history.forecast_units(0), backtest_methods(history)
    method = demand_forecast.best_method(errors[errors["way"].isin(list(forecasts))])
    first_day = history.as_of.astimezone(shop.zone).date()
    is_recent = history.sold.units[:, :HISTORY_WEEKS].any(axis=1)
    recent_products, units, count = history.products[is_recent], history.sold.units[is_recent], int(is_recent.sum())
    columns: dict[str, Any] = {
        "week_start": np.tile([first_day + timedelta(days=7 * week) for week in range(WEEKS)], count),
        "expected_units": np.round(forecasts[method][is_recent].reshape(-1), 3),
        "last_week_units": np.repeat(units[:, 0], WEEKS),
        "mean_4w_units": np.repeat(units[:, :WEEKS].mean(axis=1), WEEKS),
        "method": method,
    }
    rows = recent_products.loc[recent_products.index.repeat(WEEKS)].reset_index(drop=True)
    names = catalogue_products.find_ids(shop, [int(key) for key in recent_products["product_key"]])
    return rows.assign(product_id=rows["product_key"].map(names), **columns)[list(COLUMNS)]


def backtest_methods(history: SalesHistory) -> pd.DataFrame:
    """Errors of each method in past months, with columns way (the method), weeks_back, products, categories.

    The last two are WAPE in money, over products and over categories.
    """
    rows = []
    for weeks_back in (WEEKS * month for month in range(1, BACKTEST_MONTHS + 1)):
        if history.sold.units[:, weeks_back : weeks_back + WEEKS].sum() <= 0:
            continue
        actual = history.sold.actual_units(weeks_back)
        rows += [
            (
                method,
                weeks_back,
                demand_forecast.wape(history.sold, actual, forecast),
                demand_forecast.wape(history.sold, actual, forecast, by_category=True),
            )
            for method, forecast in history.forecast_units(weeks_back).items()
        ]
    return pd.DataFrame(rows, columns=["way", "weeks_back", "products", "categories"])


def load_sales_history(shop: Shop) -> SalesHistory:
    """The shop's weekly sales as of its last run (of now where there was none), and purchases expected from needs.

    Raises NothingToDo where nothing was sold in the last HISTORY_WEEKS weeks.
    """
    as_of = watermark.read_watermark(shop) or clock.now(shop)
    ledger = shop.ledger
    span_weeks = HISTORY_WEEKS + BACKTEST_MONTHS * WEEKS
    sales = weekly_sales.load_weekly_units(ledger, as_of=as_of, timezone=shop.timezone, weeks=span_weeks)
    if not (sales["weeks_back"] <= HISTORY_WEEKS).any():
        raise NothingToDo("nothing was sold in the last half year; run: regulars load transactions FILE")
    keys = np.unique(sales["product_key"].to_numpy(np.int64))
    category_names = snapshot.load_products(ledger).set_index("product_key")["category"].reindex(keys)
    product_frame = pd.DataFrame({"product_key": keys, "category": category_names.to_numpy(dtype=object)})
    category_codes, categories = pd.factorize(category_names.fillna("").to_numpy(dtype=object))
    sold = WeeklySales(
        _weekly_units(sales, keys, span_weeks), category_codes.astype(np.int64), _unit_prices(sales, keys)
    )
    return SalesHistory(as_of, product_frame, sold, _load_need_forecasts(shop, as_of, pd.Index(categories)))


def _weekly_units(sales: pd.DataFrame, keys: np.ndarray, span_weeks: int) -> Floats:
    units = np.zeros((len(keys), span_weeks))
    positions = np.searchsorted(keys, sales["product_key"].to_numpy(np.int64))
    units[positions, sales["weeks_back"].to_numpy(np.int64) - 1] = sales["units"].to_numpy(np.float64)
    return units


def _unit_prices(sales: pd.DataFrame, keys: np.ndarray) -> Floats:
    """The mean price of a unit, (n_products,): the median of all for a product without one, 1 where none has one."""
    totals = sales.groupby("product_key")[["worth", "units"]].sum().reindex(keys)
    price = (totals["worth"] / totals["units"]).to_numpy(np.float64)
    has_price = np.isfinite(price) & (price > 0)
    return np.where(has_price, price, np.median(price[has_price]) if has_price.any() else 1.0)


def _load_need_forecasts(shop: Shop, as_of: datetime, categories: pd.Index) -> dict[int, Floats]:
    """Expected purchases by category, by weeks back, as far as the features of the last run reach."""
    path = shop.home / "features" / "needs" / "part.parquet"
    if not path.exists():
        return {}
    lists = [f"need_{name}" for name in NEED_COLUMNS]
    needs_frame = pd.read_parquet(path, columns=["customer_key", "event_timestamp", "categories", *lists])
    needs_frame = consents.filter_allowed(shop, needs_frame, "profiling")
    today = calendar.local_days(needs_frame["event_timestamp"], shop.timezone)
    days_back = (pd.Timestamp(as_of.astimezone(shop.zone).date()) - pd.Timestamp(0)).days - today
    forecasts = {}
    for weeks_back in range(0, WEEKS * (BACKTEST_MONTHS + 2), WEEKS):
        rows = needs_frame[days_back == 7 * weeks_back]
        if len(rows):
            forecasts[weeks_back] = demand_forecast.expected_purchases(_flatten_needs(rows), categories)
    return forecasts


def _flatten_needs(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per customer and category, from rows with a list column per number."""
    columns = {f"need_{category_history.LIST_NUMBERS[name]}": rows[f"need_{name}"] for name in NEED_COLUMNS}
    columns |= {"category": rows["categories"]}
    return pd.DataFrame({name: np.concatenate([*lists.dropna(), []]) for name, lists in columns.items()})
