"""Resemblance: which products are of one kind, and how readily one of them is taken for another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.shelves import Flags, Floats, Ints

#: What counts for how much in a likeness: customers of like taste, the finer kind, a like price, the same brand,
#: and what sells; and how much a product loses that is bought beside the other and not in its place.
TASTE, FINE, PRICE, BRAND, SALES, COMPANY = 1.0, 1.0, 0.3, 0.3, 1.0, 0.15
#: Candidates of a product whose kind is not known: whoever buys alike.
NEAREST = 200


@dataclass(frozen=True)
class Likeness:
    """What is known of every product, `products` rising: its kinds, brand, price and sales, and its factors.

    `kinds` (products, 2) are numbers of the finer kind and of the category, -1 where unknown; `prices` are NaN where
    unknown. `factors` holds a row for each place in `factored`, each of length one, in steps of 1/127.
    """

    products: Ints
    kinds: NDArray[np.int32]
    brands: NDArray[np.int32]
    prices: NDArray[np.float32]
    sold: NDArray[np.float32]
    factored: NDArray[np.int32]
    factors: NDArray[np.int8]

    def arrays(self) -> dict[str, Any]:
        """All of it, as arrays that numpy can keep."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def of(cls, arrays: dict[str, Any]) -> Self:
        """The same again, from what `arrays` gave."""
        return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})

    def of_its_kind(self, place: int, least: int) -> Ints:
        """Products of the same finer kind and, where these are fewer than `least`, of the same category.

        What never sold stands in only where nothing else does. A product of no known kind has those that the same
        customers buy.
        """
        for members in self._circles(place):
            sold = members[self.sold[members] > 0]
            if len(sold) > least:
                return sold
        widest = self._circles(place)[-1]
        sold = widest[self.sold[widest] > 0]
        return sold if len(sold) > 1 else widest

    def _circles(self, place: int) -> list[Ints]:
        fine, broad = (self._members(level, int(self.kinds[place, level])) for level in (0, 1))
        if self.kinds[place].max() < 0:
            return [self._nearest(place)]
        return [circle for circle in (fine, broad) if len(circle)]

    def _members(self, level: int, kind: int) -> Ints:
        if kind < 0:
            return np.empty(0, np.int64)
        order, rising = self._by_kind[level]
        start, stop = np.searchsorted(rising, [kind, kind + 1])
        return order[start:stop]

    @cached_property
    def _by_kind(self) -> list[tuple[Ints, NDArray[np.int32]]]:
        orders = [np.argsort(self.kinds[:, level], kind="stable") for level in (0, 1)]
        return [(order, self.kinds[order, level]) for level, order in enumerate(orders)]

    def _nearest(self, place: int) -> Ints:
        if self._row_of[place] < 0:
            return np.empty(0, np.int64)
        alike = self.taste(place, self.factored.astype(np.int64))
        return self.factored[np.argsort(-alike, kind="stable")[: NEAREST + 1]].astype(np.int64)

    def best_sellers_like(self, place: int, n: int) -> Ints:
        """The n products of its kind that sell best, itself left out."""
        members = self.of_its_kind(place, n)
        members = members[(members != place) & (self.sold[members] > 0)]
        return members[np.argsort(-self.sold[members], kind="stable")[:n]]

    def same_kind(self, place: int, others: NDArray[Any]) -> Flags:
        """Whether each of the others is of the finest kind that is known of the product."""
        level = 0 if self.kinds[place, 0] >= 0 else 1
        return np.asarray((self.kinds[others, level] == self.kinds[place, level]) & (self.kinds[place, level] >= 0))

    def likeness(self, place: int, others: Ints, *, price: bool = True) -> Floats:
        """How readily each of the others is taken instead of the product, from about 0 to 1; without its price, too."""
        worth = TASTE * np.maximum(self.taste(place, others), 0.0) + SALES * self._demand(others)
        worth += FINE * ((self.kinds[others, 0] == self.kinds[place, 0]) & (self.kinds[place, 0] >= 0))
        worth += BRAND * ((self.brands[others] == self.brands[place]) & (self.brands[place] >= 0))
        if price:
            worth += PRICE * self._as_dear(place, others)
        return np.asarray(worth / (TASTE + FINE + BRAND + SALES + PRICE * price), np.float64)

    def taste(self, place: int, others: Ints) -> Floats:
        """The cosine of what customers' baskets say of two products; 0 where they say nothing of one."""
        mine, theirs = self._row_of[place], self._row_of[others]
        if mine < 0 or not len(self.factors):
            return np.zeros(len(others))
        alike = self.factors[theirs].astype(np.float64) @ self.factors[mine].astype(np.float64) / 127.0**2
        return np.where(theirs < 0, 0.0, alike)

    def _as_dear(self, place: int, others: Ints) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.abs(np.log(self.prices[others] / self.prices[place]))
        return np.where(np.isfinite(apart), np.exp(-apart), 0.5)

    def _demand(self, others: Ints) -> Floats:
        most = np.log1p(self.sold[others].max(initial=0.0))
        return np.asarray(np.log1p(self.sold[others]) / most if most > 0 else np.zeros(len(others)), np.float64)

    @cached_property
    def _row_of(self) -> Ints:
        rows = np.full(len(self.products), -1)
        rows[self.factored] = np.arange(len(self.factored))
        return rows


def learn(
    products: pd.DataFrame, prices: pd.DataFrame, factors: tuple[Ints, NDArray[Any]] | None, others: Ints
) -> Likeness:
    """Put together what the catalogue, the till and a factorisation say; `others` are further products to know of."""
    factored, vectors = factors or (np.empty(0, np.int64), np.empty((0, 1)))
    told = products.drop_duplicates("product_key").set_index("product_key")
    paid = prices.drop_duplicates("product_key").set_index("product_key")
    keys = np.unique(np.concatenate([told.index.to_numpy(np.int64), paid.index.to_numpy(np.int64), factored, others]))
    told, paid = told.reindex(keys), paid.reindex(keys)
    broad = _numbered(told["category"])
    # A finer word says something within its category only: "other" stands in many.
    fine = _numbered(told["category"].fillna("") + "\x1f" + told["subcategory"].replace("", None))
    return Likeness(
        keys,
        np.column_stack([fine, broad]).astype(np.int32),
        _numbered(told["brand"]),
        paid["price"].where(paid["price"] > 0).to_numpy(np.float32),
        paid["sold"].fillna(0).to_numpy(np.float32),
        np.searchsorted(keys, factored).astype(np.int32),
        _short(np.asarray(vectors, np.float64)),
    )


def _numbered(words: pd.Series) -> NDArray[np.int32]:
    return pd.factorize(words.replace("", None))[0].astype(np.int32)


def _short(vectors: Floats) -> NDArray[np.int8]:
    """Directions alone, in a byte a number: a tenth of the room, and the order of likenesses hardly changes."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.rint(127.0 * vectors / lengths).astype(np.int8)
