"""Matrix factorisation of implicit feedback (Hu, Koren and Volinsky, ICDM 2008), with recent popularity beside it.

Only products are stored: a customer's factors are computed from the purchase history whenever they are needed
(fold-in).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from models import arrays, base
from models.arrays import Floats, Ints
from models.recommender import purchase_history
from models.recommender.purchase_history import PurchaseHistory
from models.recommender.ranked_lists import NEW, ProductFilter, RankedProducts
from models.result_cache import ResultCache, digest

Singles = NDArray[np.float32]
#: Pairs whose factors are multiplied at once.
_PAIRS_PER_BATCH = 200_000
#: Product factors of the latest cutoffs: of the seven that two fits need, four are different.
_LATEST_FACTORS: ResultCache[Singles] = ResultCache(4)
#: Customers whose factors are solved at once: for a single one, calling the solver takes longer than solving.
_CUSTOMERS_PER_BATCH = 200


@dataclass(frozen=True)
class MatrixFactorisation:
    """Factors and recent popularity of the products that enough customers bought.

    `products` are ascending keys (n_products,); `factors` is (n_products, n_factors). `recent_popularity`
    (n_products,) is the mean of two logarithms, each against the average product: customers who bought it within the
    window, and those who did so for the first time. `half_life` is in days. `new_products` are those of `products`
    that have the mean factors of their category.
    """

    products: Ints
    factors: Singles
    recent_popularity: Singles
    regularisation: float
    half_life: int
    new_products: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def fold_in(self, history: PurchaseHistory) -> Singles:
        """Solve each customer's factors from its history: (n_customers, n_factors); 0 if none is factorised."""
        positions, is_covered = arrays.find_positions(self.products, history.products)
        positions, confidence = positions[is_covered], history.weights(self.half_life)[is_covered]
        bounds = np.searchsorted(history.rows[is_covered], np.arange(len(history) + 1))
        user_factors = np.zeros((len(history), self.factors.shape[1]), np.float32)
        active_rows = np.flatnonzero(np.diff(bounds))
        for batch in np.array_split(active_rows, len(active_rows) // _CUSTOMERS_PER_BATCH + 1):
            spans = [slice(bounds[row], bounds[row + 1]) for row in batch]
            user_factors[batch] = self._solve_user_factors(
                [(self._factors64[positions[span]], confidence[span]) for span in spans]
            )
        return user_factors

    def _solve_user_factors(self, customers: list[tuple[Floats, Floats]]) -> Floats:
        """Solve customers' factors (n_customers, n_factors), each from factors and confidences of its own products."""
        if not customers:
            return np.empty((0, self.factors.shape[1]))
        # A product that was never bought is a "no" with confidence 1, one that was a "yes" with its decayed weight.
        grams = np.stack(
            [self._unbought_gram + (factors.T * (confidence - 1.0)) @ factors for factors, confidence in customers]
        )
        targets = np.stack([confidence @ factors for factors, confidence in customers])
        return np.asarray(np.linalg.solve(grams, targets[:, :, None])[:, :, 0], np.float64)

    def score_pairs(self, user_factors: Singles, rows: Ints, products: Ints) -> Floats:
        """Inner product of customer and product factors for each pair: (n_pairs,); 0 for a product without factors."""
        positions, is_covered = arrays.find_positions(self.products, products)
        scores = np.zeros(len(rows))
        for batch in np.array_split(np.flatnonzero(is_covered), len(rows) // _PAIRS_PER_BATCH + 1):
            scores[batch] = np.einsum("ij,ij->i", user_factors[rows[batch]], self.factors[positions[batch]])
        return scores

    def product_vectors(self, popularity_weight: float) -> Singles:
        """Factors, and recent popularity times its weight as the last column: (n_products, n_factors + 1)."""
        return np.column_stack([self.factors, np.float32(popularity_weight) * self.recent_popularity])

    def arrays(self) -> dict[str, Any]:
        """Everything that is saved, as named arrays."""
        return {
            "factorised": self.products,
            "factors": self.factors,
            "heat": self.recent_popularity,
            "tastes": np.array([self.regularisation, self.half_life]),
            "young": self.new_products,
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """Rebuild the factorisation from what `arrays` returned."""
        regularisation, half_life = arrays["tastes"]
        saved_factors = arrays["factorised"], arrays["factors"], arrays["heat"]
        # Models that were saved before item cold start was added have no new products.
        new_products = arrays.get("young", np.empty(0, np.int64))
        return cls(*saved_factors, float(regularisation), int(half_life), new_products)

    @cached_property
    def _factors64(self) -> Floats:
        return self.factors.astype(np.float64)

    @cached_property
    def _unbought_gram(self) -> Floats:
        return np.asarray(self._factors64.T @ self._factors64 + self.regularisation * np.eye(self._factors64.shape[1]))


def recommend_new(
    products: Ints,
    product_vectors: Singles,
    user_factors: Singles,
    history: PurchaseHistory,
    product_filter: ProductFilter,
    n: int,
) -> RankedProducts:
    """Rank the n products that each customer never bought by score; scores are raw, not yet probabilities.

    `products` (n_products,) and `product_vectors` (n_products, n_factors + 1) come from a MatrixFactorisation, and
    `user_factors` (n_customers, n_factors) from its `fold_in` of this history. Customers whose factors are all 0 are
    left out.
    """
    allowed = product_filter.is_allowed(products)
    if not allowed.all():
        products, product_vectors = products[allowed], product_vectors[allowed]
    n, excluded_positions = min(n, len(products)), _excluded_positions(products, history, product_filter)
    batches = _batches(np.flatnonzero(user_factors.any(axis=1))) if n > 0 else []
    parts_by_batch = [
        _top_candidates(product_vectors, user_factors[rows], rows, excluded_positions, n) for rows in batches
    ]
    rows, chosen, scores = (np.concatenate(parts) for parts in zip(_NO_CANDIDATES, *parts_by_batch, strict=True))
    sources = np.full(len(rows), NEW, np.int8)
    return RankedProducts(rows, products[chosen], scores, sources, arrays.positions_within_rows(rows))


_NO_CANDIDATES = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


def _batches(rows: Ints, size: int = 64) -> Iterator[Ints]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _excluded_positions(
    products: Ints, history: PurchaseHistory, product_filter: ProductFilter
) -> Callable[[int], Ints]:
    """A function from a row to the positions of products that it must not get: its own, and those excluded for it."""
    rows, excluded = product_filter.excluded_pairs(history)
    rows, excluded = np.concatenate([history.rows, rows]), np.concatenate([history.products, excluded])
    positions, is_covered = arrays.find_positions(products, excluded)  # all rows at once: four times as fast
    order = np.flatnonzero(is_covered)[np.argsort(rows[is_covered], kind="stable")]
    positions, bounds = positions[order], np.searchsorted(rows[order], np.arange(len(history) + 1))
    return lambda row: positions[bounds[row] : bounds[row + 1]]


def _top_candidates(
    product_vectors: Singles, user_factors: Singles, rows: Ints, excluded_positions: Callable[[int], Ints], n: int
) -> tuple[Ints, Ints, Floats]:
    scores = np.hstack([user_factors, np.ones((len(rows), 1), np.float32)]) @ product_vectors.T
    for customer_scores, row in zip(scores, rows, strict=True):
        customer_scores[excluded_positions(row)] = -np.inf
    top = np.argpartition(scores, -n, axis=1)[:, -n:]
    values = np.take_along_axis(scores, top, axis=1)
    order = np.lexsort((top, -values), axis=1)
    top, values = np.take_along_axis(top, order, axis=1), np.take_along_axis(values, order, axis=1)
    is_listed = np.isfinite(values)
    return np.repeat(rows, n).reshape(is_listed.shape)[is_listed], top[is_listed], values[is_listed].astype(np.float64)


def factorise(
    frame: pd.DataFrame, *, seed: int, window_days: int, factors: int, iterations: int, threads: int
) -> MatrixFactorisation:
    """Factorise the purchases before one cutoff by implicit alternating least squares.

    frame: a row per customer, with columns customer_key, product_keys, times, last_days and weights_<days>d. Products
    need five purchase days (fewer in a small shop). The regularisation is 0.9 times the singular value that noise
    alone would have in a matrix of this size and density, so that it suits any shop. More than 30,000 customers do not
    change what products have in common. Raises InsufficientData where there is no product, and RuntimeError where the
    factors come back transposed.
    """
    half_life = purchase_history.half_lives(frame)[-1]
    history = purchase_history.read(frame, ["times", "last_days", purchase_history.weight_column(half_life)])
    products = _frequent_products(history)
    if not len(products):
        raise base.InsufficientData(
            "no customer had bought anything before the latest window that is over; load a longer history"
        )
    interactions = _interactions(history, products, history.weights(half_life))
    regularisation = 0.9 * _noise_singular_value(interactions)
    als_settings = {
        "factors": max(1, min(factors, min(interactions.shape) // 4)),
        "regularization": float(regularisation),
        "iterations": iterations,
        "num_threads": threads,
        "random_state": seed,
    }
    cells = (interactions.indptr, interactions.indices, interactions.data)
    key = digest(*cells, shape=interactions.shape, **als_settings)
    item_factors = _LATEST_FACTORS.get(key, lambda: _alternating_least_squares(interactions, als_settings))
    recent_popularity = _recent_popularity(history, products, window_days)
    return MatrixFactorisation(products, item_factors, recent_popularity, regularisation, half_life)


def _alternating_least_squares(interactions: scipy.sparse.csr_matrix, settings: dict[str, Any]) -> Singles:
    """Factors (n_products, n_factors) of the columns of a matrix of customers x products."""
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(**settings)
    model.fit(interactions, show_progress=False)
    if (len(model.user_factors), len(model.item_factors)) != interactions.shape:
        raise RuntimeError("the factors are transposed: the input of `implicit` must be customers x products")
    return np.asarray(model.item_factors, np.float32)


def _recent_popularity(history: PurchaseHistory, products: Ints, window_days: int) -> Singles:
    lately = history.columns["last_days"] <= window_days
    indicators = (lately, lately & (history.columns["times"] == 1))
    counts = [np.asarray(_interactions(history, products, indicator).sum(axis=0)).ravel() for indicator in indicators]
    # One customer more for each product, so that the few sales of a small shop weigh little.
    log_popularity = [np.log((count + 1.0) / (count.mean() + 1.0)) for count in counts]
    return np.mean(log_popularity, axis=0).astype(np.float32)


def _frequent_products(history: PurchaseHistory, min_days: int = 5, min_products: int = 200) -> Ints:
    products, position = np.unique(history.products, return_inverse=True)
    support = np.bincount(position, history.columns["times"])
    for threshold in range(min_days, 1, -1):
        if np.count_nonzero(support >= threshold) >= min_products:
            return products[support >= threshold]
    return products


def _interactions(history: PurchaseHistory, products: Ints, weights: NDArray[Any]) -> scipy.sparse.csr_matrix:
    positions, is_covered = arrays.find_positions(products, history.products)
    cells = (weights[is_covered].astype(np.float32), (history.rows[is_covered], positions[is_covered]))
    return scipy.sparse.csr_matrix(cells, shape=(len(history), len(products)))


def _noise_singular_value(bought: scipy.sparse.csr_matrix) -> float:
    customers, products = bought.shape
    density = bought.nnz / (customers * products)
    return float(np.sqrt(density) * (np.sqrt(customers) + np.sqrt(products)))
