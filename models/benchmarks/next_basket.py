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

from models.histories import Floats, Histories, Ints

LISTS = ("any", "again", "new")
#: Customers whose worths stand in memory at once: 128 of them, of 20,000 products, take 20 MB.
AT_ONCE = 128


class Rival(Protocol):
    """A method of the literature, fitted to histories; its settings are keyword-only arguments of its `fit`."""

    def worth(self, rows: Ints) -> Floats:
        """What every product is worth to these customers: (rows, products), higher is better."""
        ...


def ranked(
    rival: Rival,
    histories: Histories,
    customers: Ints,
    *,
    n: int,
    window_days: int = 28,
    lists: Sequence[str] = LISTS,
) -> pd.DataFrame:
    """Lists of n for these customers: customer_key, list, rank (from 1), product_key, source (always "rival")."""
    selling = histories.popularity(window_days) + 1e-3 * histories.popularity() / max(len(histories.customers), 1)
    places = np.searchsorted(histories.customers, customers)
    parts = [
        _ranked(rival.worth(rows), histories.owned[rows].toarray() > 0, selling, rows, n, lists)
        for rows in (places[start : start + AT_ONCE] for start in range(0, len(places), AT_ONCE))
    ]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["row", "list", "rank", "column"])
    return pd.DataFrame(
        {
            "customer_key": histories.customers[frame["row"].to_numpy(np.int64)],
            "list": frame["list"],
            "rank": frame["rank"].to_numpy(np.int64),
            "product_key": histories.products[frame["column"].to_numpy(np.int64)],
            "source": "rival",
        }
    )


def _ranked(
    worth: Floats, owned: NDArray[np.bool_], selling: Floats, rows: Ints, n: int, lists: Sequence[str]
) -> pd.DataFrame:
    # A worth of nothing leaves the order to what sells; a real worth is never overtaken by it.
    spread = np.maximum(np.abs(worth).max(axis=1, keepdims=True), 1e-12)
    total = worth / spread + 1e-9 * selling / max(float(selling.max()), 1.0)
    barred = {"again": ~owned, "new": owned}
    return pd.concat(
        [
            _top(np.where(barred[name], -np.inf, total) if name in barred else total, rows, n).assign(list=name)
            for name in lists
        ]
    )


def _top(total: Floats, rows: Ints, n: int) -> pd.DataFrame:
    n = min(n, total.shape[1])
    near = np.argpartition(-total, n - 1, axis=1)[:, :n]
    order = np.lexsort((near, -np.take_along_axis(total, near, axis=1)), axis=1)
    best = np.take_along_axis(near, order, axis=1)
    kept = np.isfinite(np.take_along_axis(total, best, axis=1))
    ranks = np.broadcast_to(np.arange(1, n + 1), best.shape)
    return pd.DataFrame({"row": np.repeat(rows, kept.sum(axis=1)), "rank": ranks[kept], "column": best[kept]})


@dataclass(frozen=True)
class Everybody:
    """What sells best, ever or lately, to everybody alike."""

    selling: Floats

    @classmethod
    def fit(cls, histories: Histories, *, days: int | None = None) -> Self:
        """Count purchase days."""
        return cls(histories.popularity(days))

    def worth(self, rows: Ints) -> Floats:
        """The same for everybody."""
        return np.tile(self.selling, (len(rows), 1))


@dataclass(frozen=True)
class Frequency:
    """What each customer bought on most days; with a half-life (days), older ones count less."""

    bought: scipy.sparse.csr_matrix

    @classmethod
    def fit(cls, histories: Histories, *, half_life: float | None = None) -> Self:
        """Count purchase days."""
        return cls(histories.matrix(None if half_life is None else 0.5 ** (histories.ages / half_life)))

    def worth(self, rows: Ints) -> Floats:
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
        cls, histories: Histories, *, neighbours: int = 300, within: float = 0.9, between: float = 0.7,
        alpha: float = 0.7, groups: int = 7,
    ) -> Self:  # fmt: skip
        """A vector a customer: `groups` groups of their baskets, which fade `within` and `between` themselves."""
        count = histories.trip_counts[histories.rows]
        used = np.minimum(groups, count)
        # Counted from the latest: the group of a basket, its place in the group, and how large the group is.
        group = histories.trips * used // count
        first, after = -(-group * count // used), -(-(group + 1) * count // used)
        fading = within ** (histories.trips - first) * between**group
        return cls(histories.matrix(fading / ((after - first) * used)), neighbours, alpha)

    def worth(self, rows: Ints) -> Floats:
        """Their own vector beside the mean of their neighbours'."""
        mine = self.vectors[rows]
        near = _nearest(mine, self.vectors, rows, self.neighbours)
        return np.asarray(self.alpha * mine.toarray() + (1 - self.alpha) * (near @ self.vectors).toarray())


def _nearest(
    mine: scipy.sparse.csr_matrix, everyone: scipy.sparse.csr_matrix, rows: Ints, neighbours: int
) -> scipy.sparse.csr_matrix:
    """An equal share of each of the nearest customers (Euclidean), nobody being their own neighbour."""
    products = (mine @ everyone.T).toarray()
    lengths = np.asarray(everyone.multiply(everyone).sum(axis=1)).ravel()
    away = lengths[None, :] - 2 * products
    away[np.arange(len(rows)), rows] = np.inf
    k = max(1, min(neighbours, everyone.shape[0] - 1))
    near = np.argpartition(away, k - 1, axis=1)[:, :k]
    cells = (np.full(near.size, 1 / k), (np.repeat(np.arange(len(rows)), k), near.ravel()))
    return scipy.sparse.csr_matrix(cells, shape=(len(rows), everyone.shape[0]))


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
    def fit(cls, histories: Histories, *, recency: int = 25, asymmetry: float = 0.75, locality: float = 10.0) -> Self:
        """The share of each customer's last `recency` baskets that held a product."""
        lately = histories.trips < recency
        each = 1 / np.minimum(histories.trip_counts, recency)[histories.rows]
        return cls(histories.matrix(np.where(lately, each, 0.0)), histories.owned, asymmetry, locality)

    def worth(self, rows: Ints) -> Floats:
        """Everybody's shares, as much of each as they are like the customer."""
        sizes = np.maximum(np.asarray(self.bought.sum(axis=1)).ravel(), 1.0)
        common = (self.bought[rows] @ self.bought.T).toarray()
        alike = common / (sizes[rows, None] ** self.asymmetry * sizes[None, :] ** (1 - self.asymmetry))
        return np.asarray((alike**self.locality) @ self.popularity)


@dataclass(frozen=True)
class Als:
    """Implicit alternating least squares, as usually set (Hu, Koren and Volinsky, ICDM 2008)."""

    customers: NDArray[np.float32]
    products: NDArray[np.float32]

    @classmethod
    def fit(cls, histories: Histories, *, factors: int = 64, confidence: float = 1.0, iterations: int = 15) -> Self:
        """Factorise purchase days with the library `implicit`."""
        from implicit.cpu.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(
            factors=factors, alpha=confidence, iterations=iterations, num_threads=1, random_state=0
        )
        model.fit(histories.matrix().astype(np.float32), show_progress=False)
        return cls(np.asarray(model.user_factors), np.asarray(model.item_factors))

    def worth(self, rows: Ints) -> Floats:
        """The inner products."""
        return np.asarray(self.customers[rows] @ self.products.T, np.float64)


@dataclass(frozen=True)
class ItemKnn:
    """Products like those that the customer bought, by who else bought both; the library `implicit`'s own."""

    bought: scipy.sparse.csr_matrix
    alike: scipy.sparse.csr_matrix

    @classmethod
    def fit(cls, histories: Histories, *, likeness: str = "cosine", neighbours: int = 20) -> Self:
        """The nearest products of each, by cosine or BM25 of who bought them how often."""
        from implicit.nearest_neighbours import BM25Recommender, CosineRecommender

        bought = histories.matrix().astype(np.float32)
        kind = {"cosine": CosineRecommender, "bm25": BM25Recommender}[likeness]
        model = kind(K=neighbours, num_threads=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library warns of a matrix that it made itself
            model.fit(bought, show_progress=False)
        return cls(bought, scipy.sparse.csr_matrix(model.similarity))

    def worth(self, rows: Ints) -> Floats:
        """The likenesses of everything they bought, added up."""
        return np.asarray((self.bought[rows] @ self.alike).toarray(), np.float64)


def settings_of(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the values of a grid."""
    names = list(grid)
    for place in np.ndindex(*(len(grid[name]) for name in names)):
        yield {name: grid[name][at] for name, at in zip(names, place, strict=True)}
