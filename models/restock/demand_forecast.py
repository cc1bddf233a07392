"""Supply: how much of each product will be sold in each of the next weeks, to know how much to have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.base import Floats
from models.btyd import bg_nbd
from models.restock import category_bg_nbd

#: So many weeks are foretold, from as many that tell the level.
WEEKS = 4
#: What a product's share of its category is read from: weeks, counted half for every so many that they lie back.
HISTORY_WEEKS, HALF_LIFE_WEEKS = 26, 6.0
#: A category of fewer expected purchases than this leans on what became of all needs.
PRIOR_PURCHASES = 20.0
LAST_WEEK, MEAN_4_WEEKS, CATEGORY_SHARED, NEEDS_SHARED = (
    "last week",
    "mean of 4 weeks",
    "category mean, shared",
    "needs of customers, shared",
)


@dataclass(frozen=True)
class WeeklySales:
    """Pieces sold of each product, (products, weeks), the latest week first; its category's number, and its price."""

    units: Floats
    category: NDArray[np.int64]
    price: Floats

    def weeks_earlier(self, weeks: int) -> WeeklySales:
        """The same as known so many weeks earlier."""
        return WeeklySales(self.units[:, weeks:], self.category, self.price)

    def actual_units(self, weeks: int) -> Floats:
        """What was sold in the weeks that came after, (products, WEEKS), the first of them first."""
        return self.units[:, weeks - WEEKS : weeks][:, ::-1]


def forecast_units(sales: WeeklySales, methods: tuple[str, ...], growth: Floats | None = None) -> dict[str, Floats]:
    """What each way expects of each product in each of the next weeks, (products, WEEKS).

    growth: (categories, WEEKS), what customers' needs will be over what the last weeks made of them; see `grown`.
    """
    mean = sales.units[:, :WEEKS].mean(axis=1)
    category_shared = _share_category_mean(sales)
    each = {LAST_WEEK: sales.units[:, 0], MEAN_4_WEEKS: mean, CATEGORY_SHARED: category_shared}
    forecasts = {method: np.repeat(column[:, None], WEEKS, axis=1) for method, column in each.items()}
    if growth is not None:
        forecasts[NEEDS_SHARED] = category_shared[:, None] * growth[sales.category]
    return {method: forecasts[method] for method in methods if method in forecasts}


def _share_category_mean(sales: WeeklySales) -> Floats:
    """Each category's mean of the last weeks, by the shares that its products have had for longer.

    What sold well for a month by chance does not go on so: on Complete Journey the error over products falls by a
    fortieth, and over categories it is that of the mean.
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
    """The purchases expected of all customers' needs, (categories, WEEKS), from the needs of one moment.

    needs: category and the numbers of a need (see stocks). Each has its own rhythm (BG/NBD).
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
    """What is expected of the needs of each category now over what was expected WEEKS weeks ago, (categories, WEEKS).

    The last weeks' sales are what became of the earlier needs, so their level carries over: unknown customers and
    pieces at a time are in it. A category of few needs leans on all.
    """
    overall = current.sum() / previous.sum() if previous.sum() > 0 else 1.0
    ratio = (current.sum(axis=1) + PRIOR_PURCHASES * overall) / (previous.sum(axis=1) + PRIOR_PURCHASES)
    return np.repeat(ratio[:, None], WEEKS, axis=1)


def wape(sales: WeeklySales, actual: Floats, predicted: Floats, *, by_category: bool = False) -> float:
    """What was foretold wrongly over what was sold, in money: the weighted absolute percentage error (WAPE).

    In money, lest litres of petrol drown everything that is sold by the piece.
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
    """The way with the smallest error over products and categories together, over the cutoffs that all ways have.

    figures: way, weeks_back, products, categories; a row a way and cutoff, plainest way first, which wins a tie.
    """
    methods_per_cutoff = errors.groupby("weeks_back")["way"].transform("nunique")
    comparable = errors[methods_per_cutoff == errors["way"].nunique()]
    means = comparable.groupby("way", sort=False)[["products", "categories"]].mean().sum(axis=1)
    finite = means[np.isfinite(means)]
    return MEAN_4_WEEKS if finite.empty else str(finite.idxmin())
