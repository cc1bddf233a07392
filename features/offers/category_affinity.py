"""Sorts: of what sort the products of an offer are, and how much of that sort a customer buys anyway."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from scipy import sparse

from features.offers import covered_products

#: From the coarsest to the finest; a subcategory is one only within its category, a line is one of a brand.
CATEGORY_LEVELS = ("category", "subcategory", "line")
COLUMNS = tuple(f"{sort}_sold" for sort in CATEGORY_LEVELS)


@dataclass(frozen=True, slots=True)
class ProductCategoryCodes:
    """The sorts of each product: `codes` is (products, SORTS), -1 where the catalogue is silent."""

    product_keys: np.ndarray  # product keys, rising
    codes: np.ndarray

    @classmethod
    def from_catalogue(cls, catalogue: pd.DataFrame) -> Self:
        """From what the catalogue says: product_key, category, subcategory, brand."""
        ordered = catalogue.sort_values("product_key")
        word_codes = {
            name: pd.factorize(ordered[name].replace("", None))[0] for name in ("category", "subcategory", "brand")
        }
        category, has_no_subcategory = word_codes["category"], word_codes["subcategory"] < 0
        subcategory = np.where(has_no_subcategory, -1, _nested_codes(category, word_codes["subcategory"]))
        line = np.where(has_no_subcategory, -1, _nested_codes(subcategory, word_codes["brand"]))
        codes = np.column_stack([category, subcategory, line]).astype("int32")
        return cls(ordered["product_key"].to_numpy("int64"), codes)

    def codes_for(self, product_keys: np.ndarray) -> dict[str, np.ndarray]:
        """The code of each product in each of SORTS, -1 for unknown."""
        positions = covered_products.find_positions(self.product_keys, product_keys)
        has_codes = positions >= 0
        codes = np.full((len(CATEGORY_LEVELS), len(product_keys)), -1, dtype="int32")
        codes[:, has_codes] = self.codes[positions[has_codes]].T
        return dict(zip(CATEGORY_LEVELS, codes, strict=True))


@dataclass(frozen=True, slots=True)
class CustomerProductWeights:
    """Products on the shelves of so many people: whose each is, and how much it weighs."""

    n_customers: int
    customer_index: np.ndarray
    product_keys: np.ndarray
    weights: np.ndarray


def score_category_affinity(
    category_codes: ProductCategoryCodes,
    product_weights: CustomerProductWeights,
    covered: covered_products.CoveredProducts,
    customer_index: np.ndarray,
    offer_index: np.ndarray,
) -> dict[str, np.ndarray]:
    """COLUMNS for pairs of a person and an offer's place.

    What they buy of the sorts that the offer is for, by the share that each has in its sales: weights of 84 days,
    summed over products of the sort.
    """
    affinity, customer_levels, offer_levels = (
        {},
        category_codes.codes_for(product_weights.product_keys),
        category_codes.codes_for(covered.covered_product_keys),
    )
    for level in CATEGORY_LEVELS:
        customer_codes, offer_codes = customer_levels[level], offer_levels[level]
        width = int(max(customer_codes.max(initial=-1), offer_codes.max(initial=-1))) + 1
        customer_weights = _sum_table(
            product_weights.customer_index,
            customer_codes,
            product_weights.weights,
            (product_weights.n_customers, width),
        )
        shares = _row_shares(
            _sum_table(covered.offer_index, offer_codes, covered.sales_share, (len(covered.offer_keys), width))
        )
        affinity[f"{level}_sold"] = (customer_weights @ shares.T).toarray()[customer_index, offer_index]
    return affinity


def _nested_codes(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """A code for each pair of codes."""
    return np.unique((outer.astype("int64") + 1) * (inner.max(initial=0) + 2) + inner + 1, return_inverse=True)[1]


def _sum_table(rows: np.ndarray, codes: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """The sum of values for each row and code; what has no code is left out."""
    has_code = codes >= 0
    return sparse.csr_matrix((values[has_code], (rows[has_code], codes[has_code])), shape=shape)


def _row_shares(table: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each row as shares of its sum."""
    total = np.asarray(table.sum(axis=1)).ravel()
    return sparse.diags(np.divide(1.0, total, out=np.zeros(len(total)), where=total > 0)) @ table
