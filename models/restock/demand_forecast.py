"""Demand forecast: units of each product in each of the next weeks, by several simple methods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.base import Floats
from models.btyd import bg_nbd
from models.restock import category_bg_nbd

#: Weeks ahead to forecast, and weeks from which the level is computed.
WEEKS = 4
#: Weeks from which a product's share of its category is computed, and the half-life of their weight.
HISTORY_WEEKS, HALF_LIFE_WEEKS = 26, 6.0
#: Weight, in expected purchases, of all categories in the growth of one.
PRIOR_PURCHASES = 20.0
LAST_WEEK, MEAN_4_WEEKS, CATEGORY_SHARED, NEEDS_SHARED = (
    "last week",
    "mean of 4 weeks",
    "category mean, shared",
    "needs of customers, shared",
)


@dataclass(frozen=True)
class WeeklySales:
    """Weekly sales of each product.

    units: (n_products, n_weeks), the latest week first.
    category: (n_products,): the number of the product's category.
    price: (n_products,).
    """

    units: Floats
    category: NDArray[np.int64]
    price: Floats

    def weeks_earlier(self, weeks: int) -> WeeklySales:
        """The same sales as they were known this many weeks earlier."""
        return WeeklySales(self.units[:, weeks:], self.category, self.price)

    def actual_units(self, weeks: int) -> Floats:
        """Units in the WEEKS weeks after that time: array (n_products, WEEKS), the first week first."""
        return self.units[:, weeks - WEEKS : weeks][:, ::-1]


def forecast_units(sales: WeeklySales, methods: tuple[str, ...], growth: Floats | None = None) -> dict[str, Floats]:
    """Forecast of each method for each product and each of the next weeks: arrays (n_products, WEEKS).

    growth: (n_categories, WEEKS): the factor on the last weeks' level from customers' expected purchases; see
        `need_growth`.
    """
    mean = sales.units[:, :WEEKS].mean(axis=1)
    category_shared = _share_category_mean(sales)
    weekly_units = {LAST_WEEK: sales.units[:, 0], MEAN_4_WEEKS: mean, CATEGORY_SHARED: category_shared}
    forecasts = {method: np.repeat(units[:, None], WEEKS, axis=1) for method, units in weekly_units.items()}
    if growth is not None:
        forecasts[NEEDS_SHARED] = category_shared[:, None] * growth[sales.category]
    return {method: forecasts[method] for method in methods if method in forecasts}


def _share_category_mean(sales: WeeklySales) -> Floats:
    """Each category's mean of the last weeks, allocated by the longer-term shares of its products.

    A product's good month is often chance and does not continue: on Complete Journey this lowers the error over
    products by a fortieth; over categories the error is that of the mean.
    """
    recent_units = sales.units[:, :HISTORY_WEEKS]
    weight = 0.5 ** (np.arange(recent_units.shape[1]) / HALF_LIFE_WEEKS)
    smoothed = recent_units @ (weight / weight.sum())
    count = int(sales.category.max(initial=-1)) + 1
    recent_total, smoothed_total = (
        np.bincount(sales.category, part, count) for part in (recent_units[:, :WEEKS].mean(axis=1), smoothed)
    )
    ratio = np.divide(recent_total, smoothed_total, out=np.zeros(count), where=smoothed_total > 0)
    return np.asarray(smoothed * ratio[sales.category])


def expected_purchases(needs: pd.DataFrame, categories: pd.Index, *, seed: int = 0) -> Floats:
    """Expected purchases per category and week ahead, over all customers: array (n_categories, WEEKS).

    needs: one row per customer and category of one cutoff, with column category and those of category_bg_nbd; each row
        has its own BG/NBD forecast.
    """
    replenishment = needs[category_bg_nbd.is_replenishment(needs)]
    summary = category_bg_nbd.purchase_summary(replenishment)
    bgnbd = (
        category_bg_nbd.fit_bgnbd(replenishment, seed=seed) if len(replenishment) else bg_nbd.BgNbd(1.0, 1.0, 1.0, 1.0)
    )
    positions = categories.get_indexer(pd.Index(replenishment["category"]))
    cumulative = np.column_stack(
        [np.maximum(bgnbd.expected_purchases(*summary, 7.0 * week), 0.0) for week in range(WEEKS + 1)]
    )
    ahead = np.diff(cumulative, axis=1)
    is_listed = positions >= 0
    return np.column_stack([np.bincount(positions[is_listed], part[is_listed], len(categories)) for part in ahead.T])


def need_growth(current: Floats, previous: Floats) -> Floats:
    """Expected purchases now over those expected WEEKS weeks ago: array (n_categories, WEEKS).

    The last weeks' sales resulted from the earlier expectation, so their level carries over: it includes unidentified
    customers and units per purchase. A category with few purchases is shrunk to the ratio of all.
    """
    overall = current.sum() / previous.sum() if previous.sum() > 0 else 1.0
    ratio = (current.sum(axis=1) + PRIOR_PURCHASES * overall) / (previous.sum(axis=1) + PRIOR_PURCHASES)
    return np.repeat(ratio[:, None], WEEKS, axis=1)


def wape(sales: WeeklySales, actual: Floats, predicted: Floats, *, by_category: bool = False) -> float:
    """Weighted absolute percentage error (WAPE) of predicted against actual units, (n_products, WEEKS), in money.

    In money, so that litres of petrol do not dominate everything that is sold by the piece.
    """
    actual, predicted = actual * sales.price[:, None], predicted * sales.price[:, None]
    if by_category:
        count = int(sales.category.max(initial=-1)) + 1
        actual, predicted = (_sum_by_category(sales.category, part, count) for part in (actual, predicted))
    total = float(actual.sum())
    return float(np.abs(actual - predicted).sum()) / total if total > 0 else float("nan")


def _sum_by_category(category: NDArray[np.int64], weekly: Floats, count: int) -> Floats:
    weekly_sums = [np.bincount(category, week, count) for week in weekly.T]
    return np.column_stack(weekly_sums).astype(np.float64)


def best_method(errors: pd.DataFrame) -> str:
    """The method with the smallest error over products plus categories, over the cutoffs that all methods have.

    errors: columns way (the method), weeks_back, products and categories, one row per method and cutoff; the simplest
        method first, which wins a tie.
    """
    methods_per_cutoff = errors.groupby("weeks_back")["way"].transform("nunique")
    comparable = errors[methods_per_cutoff == errors["way"].nunique()]
    means = comparable.groupby("way", sort=False)[["products", "categories"]].mean().sum(axis=1)
    finite = means[np.isfinite(means)]
    return MEAN_4_WEEKS if finite.empty else str(finite.idxmin())
