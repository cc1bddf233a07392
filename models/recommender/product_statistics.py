"""Demand: how each product fares with the customers who buy it, and how that has changed of late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models import shelves
from models.shelves import Floats, Ints, Shelves

NAMES = ("popular", "popular_week", "lately", "repeated", "often", "fresh", "trend", "trend_week", "gap_days")


@dataclass(frozen=True)
class Demand:
    """One row a product, products rising, a column for each of NAMES; `usual` is for any other product.

    Logarithms, but for gap_days: the share of customers who bought it within the window (`popular`) and
    within a week of it, the share of its owners who did (`lately`), who came back for it (`repeated`), purchase days
    an owner (`often`), of its late buyers those who had never bought it before (`fresh`), decayed purchases of late
    against long ones (`trend`), the last week against the window; and the days between an owner's purchases.
    """

    products: Ints
    values: Floats
    usual: Floats

    def of(self, products: Ints) -> dict[str, Floats]:
        """The columns for these products."""
        values = np.tile(self.usual, (len(products), 1))
        places, sold = shelves.find(self.products, products)
        values[sold] = self.values[places[sold]]
        return dict(zip(NAMES, values.T, strict=True))

    def arrays(self) -> dict[str, Any]:
        """All there is to keep."""
        return {"demand_products": self.products, "demand_values": self.values, "demand_usual": self.usual}

    @classmethod
    def of_arrays(cls, arrays: dict[str, Any]) -> Self:
        """The demand again, from what `arrays` gave."""
        return cls(arrays["demand_products"], arrays["demand_values"], arrays["demand_usual"])


def measure(stock: Shelves, half_lives: tuple[int, int], *, window_days: int, doubt: float = 5.0) -> Demand:
    """Measure every product on the shelves; shares of few owners are drawn to the usual one, as by `doubt` more."""
    products, place = np.unique(stock.products, return_inverse=True)
    last, times, everybody = stock.columns["last_days"], stock.columns["times"], len(stock)

    def count(of: NDArray[Any]) -> Floats:
        return np.asarray(np.bincount(place, of, len(products)), np.float64)

    owners, window, week = count(np.ones(len(place))), count(last <= window_days), count(last <= window_days / 4)
    short, long = (count(stock.weights(days)) for days in half_lives)
    fresh = count(stock.columns["first_days"] <= window_days)
    lately, usual_lately = _drawn(window, owners, doubt)
    repeated, usual_repeated = _drawn(count(times > 1), owners, doubt)
    gap, usual_gap = _gaps(stock, count, doubt)
    columns = [
        np.log((window + 1.0) / (everybody + 1.0)),
        np.log((week + 1.0) / (everybody + 1.0)),
        lately,
        repeated,
        np.log((count(times) + 1.0) / (owners + 1.0)),
        np.log((fresh + 1.0) / (window + 2.0)),
        np.log((short + 0.5) / (long + 0.5)),
        np.log((week + 0.5) / (window + 1.0)),
        gap,
    ]
    nothing = -np.log(everybody + 1.0)
    usual = [
        nothing,
        nothing,
        usual_lately,
        usual_repeated,
        0.0,
        np.log(0.5),
        0.0,
        np.log(0.5),
        usual_gap,
    ]
    return Demand(products, np.column_stack(columns), np.array(usual))


def _drawn(part: Floats, of: Floats, doubt: float) -> tuple[Floats, float]:
    usual = (part.sum() + 0.5) / (of.sum() + 1.0)
    return np.log((part + doubt * usual) / (of + doubt)), float(np.log(usual))


def _gaps(stock: Shelves, count: Any, doubt: float) -> tuple[Floats, float]:
    """The mean days between purchases of each product, by owners who bought it more than once."""
    again = np.maximum(stock.columns["times"] - 1.0, 0.0)
    span = np.where(again > 0, stock.columns["first_days"] - stock.columns["last_days"], 0.0)
    owners, gaps = count(again > 0), count(span / np.maximum(again, 1.0))
    usual = float(gaps.sum() / owners.sum()) if owners.sum() else float(stock.columns["last_days"].mean())
    return (gaps + doubt * usual) / (owners + doubt), usual
