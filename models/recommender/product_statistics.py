"""Statistics of each product over the customers who buy it: popularity, repeat rate, and recent trend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models import arrays
from models.arrays import Floats, Ints
from models.recommender.purchase_history import PurchaseHistory

COLUMNS = ("popular", "popular_week", "lately", "repeated", "often", "fresh", "trend", "trend_week", "gap_days")


@dataclass(frozen=True)
class ProductStatistics:
    """Statistics: one row per product in ascending key order, a column for each of COLUMNS; default_values for others.

    All are logarithms except gap_days. `popular` and `popular_week`: share of customers who bought it within the
    window and within a quarter of it. Of those who ever bought it, the share who did within the window (`lately`), the
    share who bought it on more than one day (`repeated`), and purchase days per customer (`often`). `fresh`: share of
    the window's buyers who had never bought it before. `trend`: decayed purchases, short half-life against long.
    `trend_week`: last quarter of the window against the window. `gap_days`: mean days between a customer's purchases.
    """

    products: Ints
    values: Floats
    default_values: Floats

    def columns_for(self, products: Ints) -> dict[str, Floats]:
        """The statistics of these products, by name: (n,) each."""
        values = np.tile(self.default_values, (len(products), 1))
        positions, has_sold = arrays.find_positions(self.products, products)
        values[has_sold] = self.values[positions[has_sold]]
        return dict(zip(COLUMNS, values.T, strict=True))

    def arrays(self) -> dict[str, Any]:
        """Everything that is saved, as named arrays."""
        return {"demand_products": self.products, "demand_values": self.values, "demand_usual": self.default_values}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """Rebuild the statistics from what `arrays` returned."""
        return cls(arrays["demand_products"], arrays["demand_values"], arrays["demand_usual"])


def compute_statistics(
    history: PurchaseHistory, half_lives: tuple[int, int], *, window_days: int, prior_weight: float = 5.0
) -> ProductStatistics:
    """Compute the statistics of every product in the history.

    half_lives (days) are the short and the long one of `trend`. Shares of products with few buyers are shrunk towards
    the overall share, as by prior_weight further buyers.
    """
    products, position = np.unique(history.products, return_inverse=True)
    last, times, n_customers = history.columns["last_days"], history.columns["times"], len(history)

    def count(weights: NDArray[Any]) -> Floats:
        return np.asarray(np.bincount(position, weights, len(products)), np.float64)

    owners, window, week = count(np.ones(len(position))), count(last <= window_days), count(last <= window_days / 4)
    short, long = (count(history.weights(days)) for days in half_lives)
    first_time_buyers = count(history.columns["first_days"] <= window_days)
    lately, default_lately = _shrunk_log_share(window, owners, prior_weight)
    repeated, default_repeated = _shrunk_log_share(count(times > 1), owners, prior_weight)
    gap, default_gap = _mean_gap_days(history, count, prior_weight)
    columns = [
        np.log((window + 1.0) / (n_customers + 1.0)),
        np.log((week + 1.0) / (n_customers + 1.0)),
        lately,
        repeated,
        np.log((count(times) + 1.0) / (owners + 1.0)),
        np.log((first_time_buyers + 1.0) / (window + 2.0)),
        np.log((short + 0.5) / (long + 0.5)),
        np.log((week + 0.5) / (window + 1.0)),
        gap,
    ]
    unsold_log_share = -np.log(n_customers + 1.0)
    default_values = [
        unsold_log_share,
        unsold_log_share,
        default_lately,
        default_repeated,
        0.0,
        np.log(0.5),
        0.0,
        np.log(0.5),
        default_gap,
    ]
    return ProductStatistics(products, np.column_stack(columns), np.array(default_values))


def _shrunk_log_share(part: Floats, total: Floats, prior_weight: float) -> tuple[Floats, float]:
    default_share = (part.sum() + 0.5) / (total.sum() + 1.0)
    return np.log((part + prior_weight * default_share) / (total + prior_weight)), float(np.log(default_share))


def _mean_gap_days(history: PurchaseHistory, count: Any, prior_weight: float) -> tuple[Floats, float]:
    """Mean days between purchases of each product, over customers who bought it again, shrunk like the shares."""
    repeats = np.maximum(history.columns["times"] - 1.0, 0.0)
    span = np.where(repeats > 0, history.columns["first_days"] - history.columns["last_days"], 0.0)
    owners, gaps = count(repeats > 0), count(span / np.maximum(repeats, 1.0))
    default_gap = float(gaps.sum() / owners.sum()) if owners.sum() else float(history.columns["last_days"].mean())
    return (gaps + prior_weight * default_gap) / (owners + prior_weight), default_gap
