"""Similarity of products: which are of one category, and how readily customers take one instead of another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.arrays import Flags, Floats, Ints

#: Weights in a similarity: factors (customers who buy alike), same subcategory, similar price, same brand, sales; and
#: how much a product loses that is bought with the other and not in its place.
FACTOR_WEIGHT, SUBCATEGORY_WEIGHT, PRICE_WEIGHT, BRAND_WEIGHT, SALES_WEIGHT, CO_PURCHASE_PENALTY = (
    1.0,
    1.0,
    0.3,
    0.3,
    1.0,
    0.15,
)
#: Candidates of a product of unknown category: the products with the nearest factors.
N_NEAREST = 200


@dataclass(frozen=True)
class ProductSimilarity:
    """Category, brand, price, sales and factors of every product, `products` being ascending keys (n_products,).

    `kinds` (n_products, 2) are codes of subcategory and category, -1 where unknown; `brands`, `prices` (NaN where
    unknown) and `sold` are (n_products,). `factors` (n_factored, n_factors) has a row for each position in `factored`,
    of length one, in steps of 1/127.
    """

    products: Ints
    kinds: NDArray[np.int32]
    brands: NDArray[np.int32]
    prices: NDArray[np.float32]
    sold: NDArray[np.float32]
    factored: NDArray[np.int32]
    factors: NDArray[np.int8]

    def arrays(self) -> dict[str, Any]:
        """Everything that is saved, as named arrays."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """Rebuild the similarity from what `arrays` returned."""
        return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})

    def category_members(self, position: int, min_members: int) -> Ints:
        """Positions (n,) of products of the subcategory or, if no more than min_members of it sold, of the category.

        Products that never sold are returned only where no other product did. A product of unknown category gets those
        that the same customers buy.
        """
        for members in self._candidate_groups(position):
            sold = members[self.sold[members] > 0]
            if len(sold) > min_members:
                return sold
        widest = self._candidate_groups(position)[-1]
        sold = widest[self.sold[widest] > 0]
        return sold if len(sold) > 1 else widest

    def _candidate_groups(self, position: int) -> list[Ints]:
        subcategory, category = (self._members(level, int(self.kinds[position, level])) for level in (0, 1))
        if self.kinds[position].max() < 0:
            return [self._nearest(position)]
        return [group for group in (subcategory, category) if len(group)]

    def _members(self, level: int, code: int) -> Ints:
        if code < 0:
            return np.empty(0, np.int64)
        order, sorted_codes = self._by_category[level]
        start, stop = np.searchsorted(sorted_codes, [code, code + 1])
        return order[start:stop]

    @cached_property
    def _by_category(self) -> list[tuple[Ints, NDArray[np.int32]]]:
        orders = [np.argsort(self.kinds[:, level], kind="stable") for level in (0, 1)]
        return [(order, self.kinds[order, level]) for level, order in enumerate(orders)]

    def _nearest(self, position: int) -> Ints:
        if self._factor_rows[position] < 0:
            return np.empty(0, np.int64)
        cosines = self.factor_cosine(position, self.factored.astype(np.int64))
        return self.factored[np.argsort(-cosines, kind="stable")[: N_NEAREST + 1]].astype(np.int64)

    def category_bestsellers(self, position: int, n: int) -> Ints:
        """Positions of the n products of its category that sell best, without itself: (n,) or fewer."""
        members = self.category_members(position, n)
        members = members[(members != position) & (self.sold[members] > 0)]
        return members[np.argsort(-self.sold[members], kind="stable")[:n]]

    def is_same_category(self, position: int, others: NDArray[Any]) -> Flags:
        """Whether each other product is in the same subcategory or, if that is unknown, category: (n_others,)."""
        level = 0 if self.kinds[position, 0] >= 0 else 1
        return np.asarray(
            (self.kinds[others, level] == self.kinds[position, level]) & (self.kinds[position, level] >= 0)
        )

    def similarity_to(self, position: int, others: Ints, *, price: bool = True) -> Floats:
        """How readily customers take each other product instead, from about 0 to 1: (n_others,)."""
        score = FACTOR_WEIGHT * np.maximum(
            self.factor_cosine(position, others), 0.0
        ) + SALES_WEIGHT * self._sales_score(others)
        score += SUBCATEGORY_WEIGHT * (
            (self.kinds[others, 0] == self.kinds[position, 0]) & (self.kinds[position, 0] >= 0)
        )
        score += BRAND_WEIGHT * ((self.brands[others] == self.brands[position]) & (self.brands[position] >= 0))
        if price:
            score += PRICE_WEIGHT * self._price_similarity(position, others)
        return np.asarray(
            score / (FACTOR_WEIGHT + SUBCATEGORY_WEIGHT + BRAND_WEIGHT + SALES_WEIGHT + PRICE_WEIGHT * price),
            np.float64,
        )

    def factor_cosine(self, position: int, others: Ints) -> Floats:
        """Cosine of the factors of the product and of each other, 0 where one has none: (n_others,)."""
        row, other_rows = self._factor_rows[position], self._factor_rows[others]
        if row < 0 or not len(self.factors):
            return np.zeros(len(others))
        cosines = self.factors[other_rows].astype(np.float64) @ self.factors[row].astype(np.float64) / 127.0**2
        return np.where(other_rows < 0, 0.0, cosines)

    def _price_similarity(self, position: int, others: Ints) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            log_ratio = np.abs(np.log(self.prices[others] / self.prices[position]))
        return np.where(np.isfinite(log_ratio), np.exp(-log_ratio), 0.5)

    def _sales_score(self, others: Ints) -> Floats:
        max_log_sold = np.log1p(self.sold[others].max(initial=0.0))
        return np.asarray(
            np.log1p(self.sold[others]) / max_log_sold if max_log_sold > 0 else np.zeros(len(others)), np.float64
        )

    @cached_property
    def _factor_rows(self) -> Ints:
        rows = np.full(len(self.products), -1)
        rows[self.factored] = np.arange(len(self.factored))
        return rows


def fit(
    products: pd.DataFrame, prices: pd.DataFrame, factors: tuple[Ints, NDArray[Any]] | None, other_products: Ints
) -> ProductSimilarity:
    """Combine catalogue, prices and factors; other_products (n_other,) are further keys to include.

    products: columns product_key, category, subcategory, brand. prices: columns product_key, price, sold. factors:
    product keys (n_factored,) and vectors (n_factored, n_factors).
    """
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
    # The name of a subcategory is unique only within its category: "other" is in many.
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


def _factorize(names: pd.Series) -> NDArray[np.int32]:
    return pd.factorize(names.replace("", None))[0].astype(np.int32)


def _quantize_directions(vectors: Floats) -> NDArray[np.int8]:
    """Unit vectors, one byte per number: a tenth of the memory, and the order of similarities hardly changes."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.rint(127.0 * vectors / lengths).astype(np.int8)
