"""Ranking features of customer-product pairs, a column each, from purchases before the cutoff."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.arrays import Floats, Ints
from models.recommender import product_categories, purchase_history
from models.recommender.matrix_factorisation import MatrixFactorisation
from models.recommender.product_categories import CategoryTotals, ProductCategories
from models.recommender.product_statistics import ProductStatistics
from models.recommender.purchase_history import PurchaseHistory
from models.recommender.ranked_lists import RankedProducts

FeatureColumns = dict[str, Floats]

#: Of a customer's own product: more of INCREASING never makes another purchase less likely, more of DECREASING never
#: likelier. This also holds in the weeks before Christmas, which trees trained on last month have no data of.
INCREASING = ("weight_", "times", "times_a_day", "product_popular", "product_lately", "product_repeated")
DECREASING = ("last_days",)


@dataclass(frozen=True)
class RankingFeatures:
    """Features of pairs, one row per pair: `values` is (n_pairs, n_features), with a name for each column."""

    names: tuple[str, ...]
    values: NDArray[np.float32]

    @classmethod
    def from_columns(cls, named_columns: FeatureColumns) -> Self:
        """Put columns, (n_pairs,) each, side by side as float32."""
        values = np.empty((len(next(iter(named_columns.values()))), len(named_columns)), np.float32)
        for position, column in enumerate(named_columns.values()):
            values[:, position] = column
        return cls(tuple(named_columns), values)

    @property
    def monotone_constraints(self) -> list[int]:
        """For each feature: 1 where more of it is never worse for a customer's own product, -1 never better, else 0."""
        return [
            1 if _matches_any(name, INCREASING) else -1 if _matches_any(name, DECREASING) else 0 for name in self.names
        ]


@dataclass(frozen=True)
class ProductContext:
    """The shop's products as of one cutoff: statistics, categories and factors, the same for every customer."""

    half_lives: tuple[int, ...]
    statistics: ProductStatistics
    categories: ProductCategories
    factorisation: MatrixFactorisation

    def ranking_context(self, history: PurchaseHistory) -> RankingContext:
        """Combine the purchase histories of some customers with these products."""
        return RankingContext(history, self)

    def arrays(self) -> dict[str, Any]:
        """Everything that is saved, as named arrays."""
        named_half_lives = {"half_lives": np.array(self.half_lives)}
        return {
            **named_half_lives,
            **self.statistics.arrays(),
            **self.categories.arrays(),
            **self.factorisation.arrays(),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """Rebuild the context from what `arrays` returned."""
        half_lives = tuple(int(days) for days in arrays["half_lives"])
        return cls(
            half_lives,
            ProductStatistics.from_arrays(arrays),
            ProductCategories.from_arrays(arrays),
            MatrixFactorisation.from_arrays(arrays),
        )

    @property
    def half_life_range(self) -> tuple[int, int]:
        """The shortest and the longest half-life (days)."""
        return self.half_lives[0], self.half_lives[-1]

    def share_of_category(self, products: Ints, level: str) -> Floats:
        """Share of each product in the recent popularity of its category, NaN where that is unknown: (n,)."""
        codes = self.categories.codes_at_level(products, level)
        popular = np.exp(self.statistics.columns_for(products)["popular"])
        return np.where(codes < 0, np.nan, popular / np.maximum(self._category_sales[level][codes + 1], 1e-12))

    @cached_property
    def _category_sales(self) -> dict[str, Floats]:
        """Recent popularity of each category, summed over products, by level; the unknown category comes first."""
        popular = np.exp(self.statistics.columns_for(self.statistics.products)["popular"])
        size = self.categories.n_codes + 1
        codes = {
            level: self.categories.codes_at_level(self.statistics.products, level) + 1
            for level in product_categories.CATEGORY_LEVELS
        }
        return {level: np.asarray(np.bincount(code, popular, size), np.float64) for level, code in codes.items()}


@dataclass(frozen=True)
class RankingContext:
    """Purchase histories of some customers, with the products as of the same cutoff."""

    history: PurchaseHistory
    product_context: ProductContext

    @cached_property
    def user_factors(self) -> NDArray[np.float32]:
        """Factors of each customer: (n_customers, n_factors)."""
        return self.product_context.factorisation.fold_in(self.history)

    @cached_property
    def customer_features(self) -> FeatureColumns:
        """Features of each customer, by name: (n_customers,) each."""
        return _customer_features(self.history, self.product_context.half_life_range)

    def category_totals(self, level: str, requested_codes: Ints) -> CategoryTotals:
        """Totals of each customer's history in each of these categories of one level; requested_codes is (n,)."""
        entry_codes = self._category_codes[:, product_categories.CATEGORY_LEVELS.index(level)]
        return product_categories.compute_category_totals(
            self.history,
            entry_codes,
            self.product_context.half_life_range,
            self.product_context.categories.n_codes,
            requested_codes,
        )

    @cached_property
    def _category_codes(self) -> Ints:
        return self.product_context.categories.all_codes(self.history.products)


def history_columns(half_lives: tuple[int, ...]) -> list[str]:
    """The columns of a purchase history that the features are computed from."""
    return ["times", "last_days", "first_days", *map(purchase_history.weight_column, half_lives)]


def own_product_features(context: RankingContext, entries: Ints) -> RankingFeatures:
    """Features of some history entries, products that the customer has bought: (n_entries, n_features)."""
    history = context.history
    rows, products = history.rows[entries], history.products[entries]
    times, last, first = (history.columns[name][entries] for name in ("times", "last_days", "first_days"))
    statistics = context.product_context.statistics.columns_for(products)
    gap = np.where(times > 1, (first - last) / np.maximum(times - 1, 1), np.nan)
    expected = (np.nan_to_num(gap) * (times - 1) + statistics["gap_days"]) / np.maximum(times, 1)
    weights = {
        f"weight_{days}d": np.log(history.weights(days)[entries] + 1e-3) for days in context.product_context.half_lives
    }
    short, long = context.product_context.half_life_range
    named_columns = {
        **weights,
        "momentum": weights[f"weight_{short}d"] - weights[f"weight_{long}d"],
        "times": times,
        "last_days": last,
        "first_days": first,
        "gap_days": gap,
        "overdue": last / np.maximum(expected, 1.0),
        "times_a_day": times / np.maximum(context.customer_features["days"][rows], 1),
        "liking": context.product_context.factorisation.score_pairs(context.user_factors, rows, products),
        **{f"product_{name}": values for name, values in statistics.items()},
        **{name: values[rows] for name, values in context.customer_features.items()},
    }
    for level in ("subcategory", "category"):
        codes = context.product_context.categories.codes_at_level(products, level)
        totals = context.category_totals(level, codes).lookup(rows, codes)
        weight = history.weights(long)[entries]
        named_columns |= {
            f"{level}_others": np.log(np.maximum(totals["long"] - weight, 0) + 1e-2),
            f"{level}_lately": np.log(totals["lately"] + 1e-2),
            f"{level}_share": weight / (totals["long"] + 1e-9),
            f"{level}_last_days": totals["last_days"],
            f"{level}_products": totals["products"],
        }
    return RankingFeatures.from_columns(named_columns)


def new_product_features(context: RankingContext, candidates: RankedProducts) -> RankingFeatures:
    """Features of candidates that the customer never bought, with their raw scores: (n_candidates, n_features)."""
    rows, products = candidates.rows, candidates.products
    best = np.full(len(context.history), -np.inf)
    np.maximum.at(best, rows, candidates.scores)
    named_columns = {
        "strength": candidates.scores,
        "behind": candidates.scores - best[rows],
        "place": candidates.ranks.astype(np.float64),
        "liking": context.product_context.factorisation.score_pairs(context.user_factors, rows, products),
        **{
            f"product_{name}": values
            for name, values in context.product_context.statistics.columns_for(products).items()
        },
        **{name: values[rows] for name, values in context.customer_features.items()},
    }
    for level in product_categories.CATEGORY_LEVELS:
        codes = context.product_context.categories.codes_at_level(products, level)
        totals = context.category_totals(level, codes).lookup(rows, codes)
        named_columns |= {
            f"{level}_standing": context.product_context.share_of_category(products, level),
            f"{level}_lately": np.log(totals["lately"] + 1e-2),
            f"{level}_long": np.log(totals["long"] + 1e-2),
            f"{level}_last_days": totals["last_days"],
            f"{level}_products": totals["products"],
        }
    return RankingFeatures.from_columns(named_columns)


def _customer_features(history: PurchaseHistory, half_lives: tuple[int, int]) -> FeatureColumns:
    n_customers, rows = len(history), history.rows
    last, first, times = (history.columns[name] for name in ("last_days", "first_days", "times"))
    short, long = (np.bincount(rows, history.weights(days), n_customers) for days in half_lives)
    size = np.bincount(rows, minlength=n_customers).astype(np.float64)
    recency, tenure = np.full(n_customers, np.inf), np.zeros(n_customers)
    np.minimum.at(recency, rows, last)
    np.maximum.at(tenure, rows, first)
    has_purchase = np.zeros((n_customers, int(last.max(initial=0)) + 1), bool)
    has_purchase[rows, last.astype(np.int64)] = True
    days = has_purchase.sum(axis=1)
    return {
        "activity": np.log(short + 0.1),
        "activity_trend": np.log((short + 0.1) / (long + 0.1)),
        "shelf": size,
        "recency_days": recency,
        "tenure_days": tenure,
        "repeat_share": np.bincount(rows, times > 1, n_customers) / np.maximum(size, 1),
        "tried": np.log(np.bincount(rows, first <= half_lives[0], n_customers) + 1.0),
        "days": days.astype(np.float64),
    }


def _matches_any(name: str, patterns: tuple[str, ...]) -> bool:
    return name in patterns or any(pattern.endswith("_") and name.startswith(pattern) for pattern in patterns)
