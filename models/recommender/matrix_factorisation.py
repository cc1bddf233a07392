"""Tastes: what customers who bought like things went on to buy, and so what somebody may like who never has.

Collaborative filtering for implicit feedback (Hu, Koren and Volinsky, ICDM 2008), with popularity beside it. Only
products are remembered: a customer's taste is worked out from their shelf whenever they are asked about.
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

from models import base, shelves
from models.shelves import NEW, Floats, Ints, Picks, Rules, Shelves

Singles = NDArray[np.float32]
#: So many pairs of factors are laid beside each other at once.
_PAIRS = 200_000
#: So many customers' tastes are solved at once: for one alone, calling the solver takes longer than solving.
_SOLVED = 200
#: More customers than this do not change what products have in common.
_ENOUGH_CUSTOMERS = 30_000


@dataclass(frozen=True)
class Tastes:
    """What is known of products that enough customers bought: their factors, and how well they sell now.

    `products` rise; `factors` is (products, f); `heat` says how many customers bought each lately, half of it
    how many did for the first time: logarithms, each over the average product. `young` are the products among them
    that are taken for what is usual of their kind.
    """

    products: Ints
    factors: Singles
    heat: Singles
    regularisation: float
    half_life: int
    young: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def fold(self, stock: Shelves) -> Singles:
        """The tastes (customers, f), each solved from its shelf; 0 where that says nothing."""
        places, sold = shelves.find(self.products, stock.products)
        places, confidence = places[sold], stock.weights(self.half_life)[sold]
        bounds = np.searchsorted(stock.rows[sold], np.arange(len(stock) + 1))
        tastes = np.zeros((len(stock), self.factors.shape[1]), np.float32)
        told = np.flatnonzero(np.diff(bounds))
        for some in np.array_split(told, len(told) // _SOLVED + 1):
            shelf = [slice(bounds[row], bounds[row + 1]) for row in some]
            tastes[some] = self._solve([(self._wide[places[mine]], confidence[mine]) for mine in shelf])
        return tastes

    def _solve(self, shelf: list[tuple[Floats, Floats]]) -> Floats:
        """The tastes of some customers, of whom each has factors and confidence for every product of theirs."""
        if not shelf:
            return np.empty((0, self.factors.shape[1]))
        # A product never bought has confidence 1 in "no", one bought has its decayed weight in "yes".
        bends = np.stack([self._never + (mine.T * (sure - 1.0)) @ mine for mine, sure in shelf])
        pulls = np.stack([sure @ mine for mine, sure in shelf])
        return np.asarray(np.linalg.solve(bends, pulls[:, :, None])[:, :, 0], np.float64)

    def strength(self, liking: Singles, rows: Ints, products: Ints) -> Floats:
        """How strongly each of these customers likes a product, a pair each; 0 for one that is not known."""
        places, known = shelves.find(self.products, products)
        strengths = np.zeros(len(rows))
        for some in np.array_split(np.flatnonzero(known), len(rows) // _PAIRS + 1):
            strengths[some] = np.einsum("ij,ij->i", liking[rows[some]], self.factors[places[some]])
        return strengths

    def sides(self, lean: float) -> Singles:
        """The products' side of a strength, (products, f + 1): factors, and heat times the lean."""
        return np.column_stack([self.factors, np.float32(lean) * self.heat])

    def arrays(self) -> dict[str, Any]:
        """All there is to keep."""
        return {
            "factorised": self.products,
            "factors": self.factors,
            "heat": self.heat,
            "tastes": np.array([self.regularisation, self.half_life]),
            "young": self.young,
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, Any]) -> Self:
        """The tastes again, from what `arrays` gave."""
        regularisation, half_life = arrays["tastes"]
        told = arrays["factorised"], arrays["factors"], arrays["heat"]
        # What was kept before anybody asked which products were young has none of them.
        young = arrays.get("young", np.empty(0, np.int64))
        return cls(*told, float(regularisation), int(half_life), young)

    @cached_property
    def _wide(self) -> Floats:
        return self.factors.astype(np.float64)

    @cached_property
    def _never(self) -> Floats:
        return np.asarray(self._wide.T @ self._wide + self.regularisation * np.eye(self._wide.shape[1]))


def discover(products: Ints, sides: Singles, liking: Singles, stock: Shelves, rules: Rules, n: int) -> Picks:
    """The n products that each customer never bought and likes best; scores are strengths, not yet chances.

    `products` and `sides` are those of `Tastes`, `liking` is what its `fold` gave for these shelves.
    Customers of whom it says nothing are left out.
    """
    allowed = rules.allow(products)
    if not allowed.all():
        products, sides = products[allowed], sides[allowed]
    n, out = min(n, len(products)), _barred(products, stock, rules)
    batches = _batches(np.flatnonzero(liking.any(axis=1))) if n > 0 else []
    picked = [_discover(sides, liking[rows], rows, out, n) for rows in batches]
    rows, chosen, strengths = (np.concatenate(parts) for parts in zip(_NONE, *picked, strict=True))
    sources = np.full(len(rows), NEW, np.int8)
    return Picks(rows, products[chosen], strengths, sources, shelves.places(rows))


_NONE = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


def _batches(rows: Ints, size: int = 64) -> Iterator[Ints]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _barred(products: Ints, stock: Shelves, rules: Rules) -> Callable[[int], Ints]:
    """For a row, the places of the products that it is not offered: its own, and those barred to it."""
    rows, barred = rules.barred_pairs(stock)
    rows, barred = np.concatenate([stock.rows, rows]), np.concatenate([stock.products, barred])
    places, sold = shelves.find(products, barred)  # of all rows at once: a search each costs four times that
    order = np.flatnonzero(sold)[np.argsort(rows[sold], kind="stable")]
    places, bounds = places[order], np.searchsorted(rows[order], np.arange(len(stock) + 1))
    return lambda row: places[bounds[row] : bounds[row + 1]]


def _discover(
    sides: Singles, liking: Singles, rows: Ints, out: Callable[[int], Ints], n: int
) -> tuple[Ints, Ints, Floats]:
    strength = np.hstack([liking, np.ones((len(rows), 1), np.float32)]) @ sides.T
    for line, row in zip(strength, rows, strict=True):
        line[out(row)] = -np.inf
    top = np.argpartition(strength, -n, axis=1)[:, -n:]
    values = np.take_along_axis(strength, top, axis=1)
    order = np.lexsort((top, -values), axis=1)
    top, values = np.take_along_axis(top, order, axis=1), np.take_along_axis(values, order, axis=1)
    kept = np.isfinite(values)
    return np.repeat(rows, n).reshape(kept.shape)[kept], top[kept], values[kept].astype(np.float64)


def factorise(
    frame: pd.DataFrame, *, seed: int, window_days: int, factors: int, iterations: int, threads: int
) -> Tastes:
    """Factorise who bought what at one moment, by implicit alternating least squares.

    Products need five purchase days (fewer in a small shop). The regularisation is a share of the singular
    value that noise alone would have in a matrix of this size and density, so that it suits any shop.
    """
    from implicit.cpu.als import AlternatingLeastSquares

    half_life = shelves.half_lives(frame)[-1]
    stock = shelves.read(frame, ["times", "last_days", shelves.weights_name(half_life)])
    products = _catalogue(stock)
    if not len(products):
        raise base.TooLittle("nobody had bought anything before the latest window that is over")
    bought = _matrix(stock, products, stock.weights(half_life))
    regularisation = 0.9 * _noise(bought)
    model = AlternatingLeastSquares(
        factors=max(1, min(factors, min(bought.shape) // 4)),
        regularization=regularisation,
        iterations=iterations,
        num_threads=threads,
        random_state=seed,
    )
    model.fit(bought, show_progress=False)
    if model.user_factors.shape[0] != len(stock) or model.item_factors.shape[0] != len(products):
        raise RuntimeError("the factorisation is the wrong way round: its input is customers by products")
    heat = _heat(stock, products, window_days)
    return Tastes(products, np.asarray(model.item_factors, np.float32), heat, regularisation, half_life)


def _heat(stock: Shelves, products: Ints, window_days: int) -> Singles:
    lately = stock.columns["last_days"] <= window_days
    kinds = (lately, lately & (stock.columns["times"] == 1))
    counts = [np.asarray(_matrix(stock, products, kind).sum(axis=0)).ravel() for kind in kinds]
    # One customer more for each product, so that a small shop's few sales say little.
    heats = [np.log((count + 1.0) / (count.mean() + 1.0)) for count in counts]
    return np.mean(heats, axis=0).astype(np.float32)


def _catalogue(stock: Shelves, days: int = 5, wanted: int = 200) -> Ints:
    products, place = np.unique(stock.products, return_inverse=True)
    support = np.bincount(place, stock.columns["times"])
    for least in range(days, 1, -1):
        if np.count_nonzero(support >= least) >= wanted:
            return products[support >= least]
    return products


def _matrix(stock: Shelves, products: Ints, weights: NDArray[Any]) -> scipy.sparse.csr_matrix:
    places, sold = shelves.find(products, stock.products)
    cells = (weights[sold].astype(np.float32), (stock.rows[sold], places[sold]))
    return scipy.sparse.csr_matrix(cells, shape=(len(stock), len(products)))


def _noise(bought: scipy.sparse.csr_matrix) -> float:
    customers, products = bought.shape
    density = bought.nnz / (customers * products)
    return float(np.sqrt(density) * (np.sqrt(customers) + np.sqrt(products)))
