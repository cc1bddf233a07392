"""Rivals: what the literature would recommend to the same customers; the recommender is measured against them.

None of them is served. Each takes everybody's purchase days before a moment and says what every product is worth
to a customer; what is worth nothing is ranked by how well it sells, so that no list is short.
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
#: Customers whose worths stand in memory at once: 128 of them, of 20,000 products, take 20 MB.
BATCH_CUSTOMERS = 128


class BenchmarkMethod(Protocol):
    """A method of the literature, fitted to histories; its settings are keyword-only arguments of its `fit`."""

    def score_products(self, rows: Ints) -> Floats:
        """What every product is worth to these customers: (rows, products), higher is better."""
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
    """Lists of n for these customers: customer_key, list, rank (from 1), product_key, source (always "rival")."""
    popularity = interactions.popularity(window_days) + 1e-3 * interactions.popularity() / max(
        len(interactions.customers), 1
    )
    places = np.searchsorted(interactions.customers, customers)
    parts = [
        _rank_batch(method.score_products(rows), interactions.owned[rows].toarray() > 0, popularity, rows, n, lists)
        for rows in (places[start : start + BATCH_CUSTOMERS] for start in range(0, len(places), BATCH_CUSTOMERS))
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
    # A worth of nothing leaves the order to what sells; a real worth is never overtaken by it.
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
    near = np.argpartition(-total, n - 1, axis=1)[:, :n]
    order = np.lexsort((near, -np.take_along_axis(total, near, axis=1)), axis=1)
    best = np.take_along_axis(near, order, axis=1)
    is_listed = np.isfinite(np.take_along_axis(total, best, axis=1))
    ranks = np.broadcast_to(np.arange(1, n + 1), best.shape)
    return pd.DataFrame(
        {"row": np.repeat(rows, is_listed.sum(axis=1)), "rank": ranks[is_listed], "column": best[is_listed]}
    )


@dataclass(frozen=True)
class GlobalPopularity:
    """What sells best, ever or lately, to everybody alike."""

    popularity: Floats

    @classmethod
    def fit(cls, interactions: InteractionMatrix, *, days: int | None = None) -> Self:
        """Count purchase days."""
        return cls(interactions.popularity(days))

    def score_products(self, rows: Ints) -> Floats:
        """The same for everybody."""
        return np.tile(self.popularity, (len(rows), 1))


@dataclass(frozen=True)
class PersonalFrequency:
    """What each customer bought on most days; with a half-life (days), older ones count less."""

    bought: scipy.sparse.csr_matrix

    @classmethod
    def fit(cls, interactions: InteractionMatrix, *, half_life: float | None = None) -> Self:
        """Count purchase days."""
        return cls(interactions.matrix(None if half_life is None else 0.5 ** (interactions.ages / half_life)))

    def score_products(self, rows: Ints) -> Floats:
        """Their own counts."""
        return np.asarray(self.bought[rows].toarray())


@dataclass(frozen=True)
class TifuKnn:
    """Frequencies that fade within and between groups of baskets, and those of the nearest customers.

    Hu et al., "Modeling personalized item frequency information for next-basket recommendation", SIGIR 2020.
    """

    vectors: scipy.sparse.csr_matrix
    neighbours: int
    alpha: float

    @classmethod
    def fit(
        cls, interactions: InteractionMatrix, *, neighbours: int = 300, within: float = 0.9, between: float = 0.7,
        alpha: float = 0.7, groups: int = 7,
    ) -> Self:  # fmt: skip
        """A vector a customer: `groups` groups of their baskets, which fade `within` and `between` themselves."""
        count = interactions.trip_counts[interactions.rows]
        used = np.minimum(groups, count)
        # Counted from the latest: the group of a basket, its place in the group, and how large the group is.
        group = interactions.trips * used // count
        first, after = -(-group * count // used), -(-(group + 1) * count // used)
        decay = within ** (interactions.trips - first) * between**group
        return cls(interactions.matrix(decay / ((after - first) * used)), neighbours, alpha)

    def score_products(self, rows: Ints) -> Floats:
        """Their own vector beside the mean of their neighbours'."""
        vectors = self.vectors[rows]
        near = _nearest_customers(vectors, self.vectors, rows, self.neighbours)
        return np.asarray(self.alpha * vectors.toarray() + (1 - self.alpha) * (near @ self.vectors).toarray())


def _nearest_customers(
    vectors: scipy.sparse.csr_matrix, all_vectors: scipy.sparse.csr_matrix, rows: Ints, neighbours: int
) -> scipy.sparse.csr_matrix:
    """An equal share of each of the nearest customers (Euclidean), nobody being their own neighbour."""
    products = (vectors @ all_vectors.T).toarray()
    lengths = np.asarray(all_vectors.multiply(all_vectors).sum(axis=1)).ravel()
    squared_distances = lengths[None, :] - 2 * products
    squared_distances[np.arange(len(rows)), rows] = np.inf
    k = max(1, min(neighbours, all_vectors.shape[0] - 1))
    near = np.argpartition(squared_distances, k - 1, axis=1)[:, :k]
    cells = (np.full(near.size, 1 / k), (np.repeat(np.arange(len(rows)), k), near.ravel()))
    return scipy.sparse.csr_matrix(cells, shape=(len(rows), all_vectors.shape[0]))


@dataclass(frozen=True)
class UpCf:
    """User-wise popularity over the last baskets, carried to customers who bought alike by asymmetric cosine.

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
        """The share of each customer's last `recency` baskets that held a product."""
        lately = interactions.trips < recency
        each = 1 / np.minimum(interactions.trip_counts, recency)[interactions.rows]
        return cls(interactions.matrix(np.where(lately, each, 0.0)), interactions.owned, asymmetry, locality)

    def score_products(self, rows: Ints) -> Floats:
        """Everybody's shares, as much of each as they are like the customer."""
        sizes = np.maximum(np.asarray(self.bought.sum(axis=1)).ravel(), 1.0)
        common = (self.bought[rows] @ self.bought.T).toarray()
        similarity = common / (sizes[rows, None] ** self.asymmetry * sizes[None, :] ** (1 - self.asymmetry))
        return np.asarray((similarity**self.locality) @ self.popularity)


@dataclass(frozen=True)
class ImplicitAls:
    """Implicit alternating least squares, as usually set (Hu, Koren and Volinsky, ICDM 2008)."""

    customers: NDArray[np.float32]
    products: NDArray[np.float32]

    @classmethod
    def fit(
        cls, interactions: InteractionMatrix, *, factors: int = 64, confidence: float = 1.0, iterations: int = 15
    ) -> Self:
        """Factorise purchase days with the library `implicit`."""
        from implicit.cpu.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(
            factors=factors, alpha=confidence, iterations=iterations, num_threads=1, random_state=0
        )
        model.fit(interactions.matrix().astype(np.float32), show_progress=False)
        return cls(np.asarray(model.user_factors), np.asarray(model.item_factors))

    def score_products(self, rows: Ints) -> Floats:
        """The inner products."""
        return np.asarray(self.customers[rows] @ self.products.T, np.float64)


@dataclass(frozen=True)
class ItemKnn:
    """Products like those that the customer bought, by who else bought both; the library `implicit`'s own."""

    bought: scipy.sparse.csr_matrix
    similarity: scipy.sparse.csr_matrix

    @classmethod
    def fit(cls, interactions: InteractionMatrix, *, likeness: str = "cosine", neighbours: int = 20) -> Self:
        """The nearest products of each, by cosine or BM25 of who bought them how often."""
        from implicit.nearest_neighbours import BM25Recommender, CosineRecommender

        bought = interactions.matrix().astype(np.float32)
        recommender_class = {"cosine": CosineRecommender, "bm25": BM25Recommender}[likeness]
        model = recommender_class(K=neighbours, num_threads=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library warns of a matrix that it made itself
            model.fit(bought, show_progress=False)
        return cls(bought, scipy.sparse.csr_matrix(model.similarity))

    def score_products(self, rows: Ints) -> Floats:
        """The likenesses of everything they bought, added up."""
        return np.asarray((self.bought[rows] @ self.similarity).toarray(), np.float64)


def parameter_grid(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the values of a grid."""
    names = list(grid)
    for place in np.ndindex(*(len(grid[name]) for name in names)):
        yield {name: grid[name][at] for name, at in zip(names, place, strict=True)}
