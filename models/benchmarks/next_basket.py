"""Published next-basket methods, measured beside the recommender and never served.

Each is fitted to the purchase days of all customers before a cutoff, and scores every product for a customer. Products
with score 0 are ordered by recent popularity, so that no list is short.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from models.benchmarks.interaction_matrix import Floats, InteractionMatrix, Ints

LISTS = ("any", "again", "new")
#: Customers that are scored at once: the scores of 128 of them for 20,000 products take 20 MB.
BATCH_CUSTOMERS = 128


class BenchmarkMethod(Protocol):
    """A published method, fitted to an InteractionMatrix; its settings are keyword-only arguments of `fit`."""

    def score_products(self, rows: Ints) -> Floats:
        """Score every product for the customers at these rows: (n_rows, n_products), higher is better."""
        ...


def rank_lists(
    method: BenchmarkMethod,
    interactions: InteractionMatrix,
    customers: Ints,
    *,
    n: int,
    window_days: int = 28,
    lists: Sequence[str] = LISTS,
) -> pd.DataFrame:
    """Rank the n best products of each list for these customers, all of them in `interactions`.

    Returns columns customer_key, list, rank (from 1), product_key and source (always "rival"). List `again` holds
    products that the customer has bought, `new` the others, `any` both.
    """
    popularity = interactions.popularity(window_days) + 1e-3 * interactions.popularity() / max(
        len(interactions.customers), 1
    )
    positions = np.searchsorted(interactions.customers, customers)
    parts = [
        _rank_batch(method.score_products(rows), interactions.owned[rows].toarray() > 0, popularity, rows, n, lists)
        for rows in (positions[start : start + BATCH_CUSTOMERS] for start in range(0, len(positions), BATCH_CUSTOMERS))
    ]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["row", "list", "rank", "column"])
    return pd.DataFrame(
        {
            "customer_key": interactions.customers[frame["row"].to_numpy(np.int64)],
            "list": frame["list"],
            "rank": frame["rank"].to_numpy(np.int64),
            "product_key": interactions.products[frame["column"].to_numpy(np.int64)],
            "source": "rival",
        }
    )


def _rank_batch(
    scores: Floats, owned: NDArray[np.bool_], popularity: Floats, rows: Ints, n: int, lists: Sequence[str]
) -> pd.DataFrame:
    # Popularity, at most 1e-9 of the largest score, orders products with score 0; it never overtakes a real score.
    spread = np.maximum(np.abs(scores).max(axis=1, keepdims=True), 1e-12)
    total = scores / spread + 1e-9 * popularity / max(float(popularity.max()), 1.0)
    excluded = {"again": ~owned, "new": owned}
    return pd.concat(
        [
            _top_n(np.where(excluded[name], -np.inf, total) if name in excluded else total, rows, n).assign(list=name)
            for name in lists
        ]
    )


def _top_n(total: Floats, rows: Ints, n: int) -> pd.DataFrame:
    n = min(n, total.shape[1])
    top = np.argpartition(-total, n - 1, axis=1)[:, :n]
    order = np.lexsort((top, -np.take_along_axis(total, top, axis=1)), axis=1)
    listed = np.take_along_axis(top, order, axis=1)
    is_listed = np.isfinite(np.take_along_axis(total, listed, axis=1))
    ranks = np.broadcast_to(np.arange(1, n + 1), listed.shape)
    return pd.DataFrame(
        {"row": np.repeat(rows, is_listed.sum(axis=1)), "rank": ranks[is_listed], "column": listed[is_listed]}
    )


@dataclass(frozen=True)
class GlobalPopularity:
    """Purchase days of each product, ever or recently; the same scores for every customer."""

    popularity: Floats

    @classmethod
    def fit(cls, interactions: InteractionMatrix, *, days: int | None = None) -> Self:
        """Count the purchase days of each product, ever or in the last `days`."""
        return cls(interactions.popularity(days))

    def score_products(self, rows: Ints) -> Floats:
        """The popularity of each product, repeated for every row: (n_rows, n_products)."""
        return np.tile(self.popularity, (len(rows), 1))


@dataclass(frozen=True)
class PersonalFrequency:
    """Purchase days of each customer and product; with a half-life (days), older ones count less."""

    bought: scipy.sparse.csr_matrix

    @classmethod
    def fit(cls, interactions: InteractionMatrix, *, half_life: float | None = None) -> Self:
        """Count the purchase days of each customer and product, decayed where a half_life (days) is given."""
        return cls(interactions.matrix(None if half_life is None else 0.5 ** (interactions.ages / half_life)))

    def score_products(self, rows: Ints) -> Floats:
        """The customer's own counts: (n_rows, n_products)."""
        return np.asarray(self.bought[rows].toarray())


@dataclass(frozen=True)
class TifuKnn:
    """TIFU-KNN: item frequencies, decayed within and between groups of baskets, and those of the nearest customers.

    Hu et al., "Modeling personalized item frequency information for next-basket recommendation", SIGIR 2020.
    """

    vectors: scipy.sparse.csr_matrix
    neighbours: int
    alpha: float

    @classmethod
    def fit(
        cls,
        interactions: InteractionMatrix,
        *,
        neighbours: int = 300,
        within: float = 0.9,
        between: float = 0.7,
        alpha: float = 0.7,
        groups: int = 7,
    ) -> Self:
        """Build one vector per customer from its baskets in `groups` groups, decayed `within` and `between` them."""
        count = interactions.trip_counts[interactions.rows]
        n_groups = np.minimum(groups, count)
        # Counted from the latest basket: its group, and where that group starts and stops.
        group = interactions.trips * n_groups // count
        first, stop = -(-group * count // n_groups), -(-(group + 1) * count // n_groups)
        decay = within ** (interactions.trips - first) * between**group
        return cls(interactions.matrix(decay / ((stop - first) * n_groups)), neighbours, alpha)

    def score_products(self, rows: Ints) -> Floats:
        """alpha times the customer's vector plus (1 - alpha) times its neighbours' mean: (n_rows, n_products)."""
        vectors = self.vectors[rows]
        neighbour_weights = _nearest_customers(vectors, self.vectors, rows, self.neighbours)
        return np.asarray(
            self.alpha * vectors.toarray() + (1 - self.alpha) * (neighbour_weights @ self.vectors).toarray()
        )


def _nearest_customers(
    vectors: scipy.sparse.csr_matrix, all_vectors: scipy.sparse.csr_matrix, rows: Ints, neighbours: int
) -> scipy.sparse.csr_matrix:
    """Weight 1/k for each of a row's k nearest other customers (Euclidean), as (n_rows, n_customers)."""
    products = (vectors @ all_vectors.T).toarray()
    lengths = np.asarray(all_vectors.multiply(all_vectors).sum(axis=1)).ravel()
    squared_distances = lengths[None, :] - 2 * products
    squared_distances[np.arange(len(rows)), rows] = np.inf
    k = max(1, min(neighbours, all_vectors.shape[0] - 1))
    nearest = np.argpartition(squared_distances, k - 1, axis=1)[:, :k]
    cells = (np.full(nearest.size, 1 / k), (np.repeat(np.arange(len(rows)), k), nearest.ravel()))
    return scipy.sparse.csr_matrix(cells, shape=(len(rows), all_vectors.shape[0]))


@dataclass(frozen=True)
class UpCf:
    """UP-CF: popularity over each customer's last baskets, summed over customers by asymmetric cosine similarity.

    Faggioli, Polato and Aiolli, "Recency aware collaborative filtering for next basket recommendation", UMAP 2020.
    """

    popularity: scipy.sparse.csr_matrix
    bought: scipy.sparse.csr_matrix
    asymmetry: float
    locality: float

    @classmethod
    def fit(
        cls, interactions: InteractionMatrix, *, recency: int = 25, asymmetry: float = 0.75, locality: float = 10.0
    ) -> Self:
        """Compute the share of each customer's last `recency` baskets that held each product."""
        is_recent = interactions.trips < recency
        weight = 1 / np.minimum(interactions.trip_counts, recency)[interactions.rows]
        return cls(interactions.matrix(np.where(is_recent, weight, 0.0)), interactions.owned, asymmetry, locality)

    def score_products(self, rows: Ints) -> Floats:
        """Popularity of all customers, weighted by similarity to the power `locality`: (n_rows, n_products)."""
        sizes = np.maximum(np.asarray(self.bought.sum(axis=1)).ravel(), 1.0)
        common = (self.bought[rows] @ self.bought.T).toarray()
        similarity = common / (sizes[rows, None] ** self.asymmetry * sizes[None, :] ** (1 - self.asymmetry))
        return np.asarray((similarity**self.locality) @ self.popularity)


@dataclass(frozen=True)
class ImplicitAls:
    """Implicit alternating least squares with customary settings (Hu, Koren and Volinsky, ICDM 2008)."""

    customers: NDArray[np.float32]
    products: NDArray[np.float32]

    @classmethod
    def fit(
        cls, interactions: InteractionMatrix, *, factors: int = 64, confidence: float = 1.0, iterations: int = 15
    ) -> Self:
        """Factorise the counts of purchase days with the library `implicit`."""
        from implicit.cpu.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(
            factors=factors, alpha=confidence, iterations=iterations, num_threads=1, random_state=0
        )
        model.fit(interactions.matrix().astype(np.float32), show_progress=False)
        return cls(np.asarray(model.user_factors), np.asarray(model.item_factors))

    def score_products(self, rows: Ints) -> Floats:
        """Inner products of customer and product factors: (n_rows, n_products)."""
        return np.asarray(self.customers[rows] @ self.products.T, np.float64)


@dataclass(frozen=True)
class ItemKnn:
    """Item-based nearest neighbours by who bought both products, as the library `implicit` computes them."""

    bought: scipy.sparse.csr_matrix
    similarity: scipy.sparse.csr_matrix

    @classmethod
    def fit(cls, interactions: InteractionMatrix, *, likeness: str = "cosine", neighbours: int = 20) -> Self:
        """Find each product's nearest products, by cosine or BM25 of its purchase days per customer."""
        from implicit.nearest_neighbours import BM25Recommender, CosineRecommender

        bought = interactions.matrix().astype(np.float32)
        recommender_class = {"cosine": CosineRecommender, "bm25": BM25Recommender}[likeness]
        model = recommender_class(K=neighbours, num_threads=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library warns about a matrix that it built itself
            model.fit(bought, show_progress=False)
        return cls(bought, scipy.sparse.csr_matrix(model.similarity))

    def score_products(self, rows: Ints) -> Floats:
        """Similarity to the products that the customer bought, times their purchase days: (n_rows, n_products)."""
        return np.asarray((self.bought[rows] @ self.similarity).toarray(), np.float64)


def parameter_grid(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yield every combination of the values of a grid, as keyword arguments."""
    names = list(grid)
    for position in np.ndindex(*(len(grid[name]) for name in names)):
        yield {name: grid[name][index] for name, index in zip(names, position, strict=True)}
