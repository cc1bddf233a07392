"""Demand: how each product fares with the customers who buy it, and how that has changed of late."""

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
    """One row a product, products rising, a column for each of NAMES; `usual` is for any other product.

    Logarithms, but for gap_days: the share of customers who bought it within the window (`popular`) and
    within a week of it, the share of its owners who did (`lately`), who came back for it (`repeated`), purchase days
    an owner (`often`), of its late buyers those who had never bought it before (`fresh`), decayed purchases of late
    against long ones (`trend`), the last week against the window; and the days between an owner's purchases.
    """

    products: Ints
    values: Floats
    default_values: Floats

    def columns_for(self, products: Ints) -> dict[str, Floats]:
        """The columns for these products."""
        values = np.tile(self.default_values, (len(products), 1))
        places, sold = arrays.find_positions(self.products, products)
        values[sold] = self.values[places[sold]]
        return dict(zip(COLUMNS, values.T, strict=True))

    def arrays(self) -> dict[str, Any]:
        """All there is to keep."""
        return {"demand_products": self.products, "demand_values": self.values, "demand_usual": self.default_values}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """The demand again, from what `arrays` gave."""
        return cls(arrays["demand_products"], arrays["demand_values"], arrays["demand_usual"])


def compute_statistics(
    history: PurchaseHistory, half_lives: tuple[int, int], *, window_days: int, prior_weight: float = 5.0
) -> ProductStatistics:
    """Measure every product on the shelves; shares of few owners are drawn to the usual one, as by `doubt` more."""
    products, place = np.unique(history.products, return_inverse=True)
    last, times, n_customers = history.columns["last_days"], history.columns["times"], len(history)

    def count(weights: NDArray[Any]) -> Floats:
        return np.asarray(np.bincount(place, weights, len(products)), np.float64)

    owners, window, week = count(np.ones(len(place))), count(last <= window_days), count(last <= window_days / 4)
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
    """The mean days between purchases of each product, by owners who bought it more than once."""
    repeats = np.maximum(history.columns["times"] - 1.0, 0.0)
    span = np.where(repeats > 0, history.columns["first_days"] - history.columns["last_days"], 0.0)
    owners, gaps = count(repeats > 0), count(span / np.maximum(repeats, 1.0))
    default_gap = float(gaps.sum() / owners.sum()) if owners.sum() else float(history.columns["last_days"].mean())
    return (gaps + prior_weight * default_gap) / (owners + prior_weight), default_gap
