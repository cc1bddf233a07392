"""Resemblance: which products are of one kind, and how readily one of them is taken for another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.arrays import Flags, Floats, Ints

#: What counts for how much in a likeness: customers of like taste, the finer kind, a like price, the same brand,
#: and what sells; and how much a product loses that is bought beside the other and not in its place.
FACTOR_WEIGHT, SUBCATEGORY_WEIGHT, PRICE_WEIGHT, BRAND_WEIGHT, SALES_WEIGHT, CO_PURCHASE_PENALTY = (
    1.0,
    1.0,
    0.3,
    0.3,
    1.0,
    0.15,
)
#: Candidates of a product whose kind is not known: whoever buys alike.
N_NEAREST = 200


@dataclass(frozen=True)
class ProductSimilarity:
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
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """The same again, from what `arrays` gave."""
        return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})

    def category_members(self, place: int, least: int) -> Ints:
        """Products of the same finer kind and, where these are fewer than `least`, of the same category.

        What never sold stands in only where nothing else does. A product of no known kind has those that the same
        customers buy.
        """
        for members in self._candidate_groups(place):
            sold = members[self.sold[members] > 0]
            if len(sold) > least:
                return sold
        widest = self._candidate_groups(place)[-1]
        sold = widest[self.sold[widest] > 0]
        return sold if len(sold) > 1 else widest

    def _candidate_groups(self, place: int) -> list[Ints]:
        subcategory, category = (self._members(level, int(self.kinds[place, level])) for level in (0, 1))
        if self.kinds[place].max() < 0:
            return [self._nearest(place)]
        return [group for group in (subcategory, category) if len(group)]

    def _members(self, level: int, code: int) -> Ints:
        if code < 0:
            return np.empty(0, np.int64)
        order, rising = self._by_category[level]
        start, stop = np.searchsorted(rising, [code, code + 1])
        return order[start:stop]

    @cached_property
    def _by_category(self) -> list[tuple[Ints, NDArray[np.int32]]]:
        orders = [np.argsort(self.kinds[:, level], kind="stable") for level in (0, 1)]
        return [(order, self.kinds[order, level]) for level, order in enumerate(orders)]

    def _nearest(self, place: int) -> Ints:
        if self._factor_rows[place] < 0:
            return np.empty(0, np.int64)
        cosines = self.factor_cosine(place, self.factored.astype(np.int64))
        return self.factored[np.argsort(-cosines, kind="stable")[: N_NEAREST + 1]].astype(np.int64)

    def category_bestsellers(self, place: int, n: int) -> Ints:
        """The n products of its kind that sell best, itself left out."""
        members = self.category_members(place, n)
        members = members[(members != place) & (self.sold[members] > 0)]
        return members[np.argsort(-self.sold[members], kind="stable")[:n]]

    def is_same_category(self, place: int, others: NDArray[Any]) -> Flags:
        """Whether each of the others is of the finest kind that is known of the product."""
        level = 0 if self.kinds[place, 0] >= 0 else 1
        return np.asarray((self.kinds[others, level] == self.kinds[place, level]) & (self.kinds[place, level] >= 0))

    def similarity_to(self, place: int, others: Ints, *, price: bool = True) -> Floats:
        """How readily each of the others is taken instead of the product, from about 0 to 1; without its price, too."""
        score = FACTOR_WEIGHT * np.maximum(self.factor_cosine(place, others), 0.0) + SALES_WEIGHT * self._sales_score(
            others
        )
        score += SUBCATEGORY_WEIGHT * ((self.kinds[others, 0] == self.kinds[place, 0]) & (self.kinds[place, 0] >= 0))
        score += BRAND_WEIGHT * ((self.brands[others] == self.brands[place]) & (self.brands[place] >= 0))
        if price:
            score += PRICE_WEIGHT * self._price_similarity(place, others)
        return np.asarray(
            score / (FACTOR_WEIGHT + SUBCATEGORY_WEIGHT + BRAND_WEIGHT + SALES_WEIGHT + PRICE_WEIGHT * price),
            np.float64,
        )

    def factor_cosine(self, place: int, others: Ints) -> Floats:
        """The cosine of what customers' baskets say of two products; 0 where they say nothing of one."""
        row, other_rows = self._factor_rows[place], self._factor_rows[others]
        if row < 0 or not len(self.factors):
            return np.zeros(len(others))
        cosines = self.factors[other_rows].astype(np.float64) @ self.factors[row].astype(np.float64) / 127.0**2
        return np.where(other_rows < 0, 0.0, cosines)

    def _price_similarity(self, place: int, others: Ints) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.abs(np.log(self.prices[others] / self.prices[place]))
        return np.where(np.isfinite(apart), np.exp(-apart), 0.5)

    def _sales_score(self, others: Ints) -> Floats:
        most = np.log1p(self.sold[others].max(initial=0.0))
        return np.asarray(np.log1p(self.sold[others]) / most if most > 0 else np.zeros(len(others)), np.float64)

    @cached_property
    def _factor_rows(self) -> Ints:
        rows = np.full(len(self.products), -1)
        rows[self.factored] = np.arange(len(self.factored))
        return rows


def fit(
    products: pd.DataFrame, prices: pd.DataFrame, factors: tuple[Ints, NDArray[Any]] | None, other_products: Ints
) -> ProductSimilarity:
    """Put together what the catalogue, the till and a factorisation say; `others` are further products to know of."""
    factored, vectors = factors or (np.empty(0, np.int64), np.empty((0, 1)))
    catalogue = products.drop_duplicates("product_key").set_index("product_key")
    price_rows = prices.drop_duplicates("product_key").set_index("product_key")
    keys = np.unique(
        np.concatenate(
            [catalogue.index.to_numpy(np.int64), price_rows.index.to_numpy(np.int64), factored, other_products]
        )
    )
    catalogue, price_rows = catalogue.reindex(keys), price_rows.reindex(keys)
    category_codes = _factorize(catalogue["category"])
    # A finer word says something within its category only: "other" stands in many.
    subcategory_codes = _factorize(
        catalogue["category"].fillna("") + "\x1f" + catalogue["subcategory"].replace("", None)
    )
    return ProductSimilarity(
        keys,
        np.column_stack([subcategory_codes, category_codes]).astype(np.int32),
        _factorize(catalogue["brand"]),
        price_rows["price"].where(price_rows["price"] > 0).to_numpy(np.float32),
        price_rows["sold"].fillna(0).to_numpy(np.float32),
        np.searchsorted(keys, factored).astype(np.int32),
        _quantize_directions(np.asarray(vectors, np.float64)),
    )


def _factorize(words: pd.Series) -> NDArray[np.int32]:
    return pd.factorize(words.replace("", None))[0].astype(np.int32)


def _quantize_directions(vectors: Floats) -> NDArray[np.int8]:
    """Directions alone, in a byte a number: a tenth of the room, and the order of likenesses hardly changes."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.rint(127.0 * vectors / lengths).astype(np.int8)
