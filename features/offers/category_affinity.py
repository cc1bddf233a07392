"""Category affinity: how much a customer buys of the categories that an offer covers."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from scipy import sparse

from features.offers import covered_products

#: From coarse to fine; a subcategory is unique within its category, a line is one brand's part of a subcategory.
CATEGORY_LEVELS = ("category", "subcategory", "line")
COLUMNS = tuple(f"{level}_sold" for level in CATEGORY_LEVELS)


@dataclass(frozen=True, slots=True)
class ProductCategoryCodes:
    """Category codes of each product: `codes` is (n_products, 3), in the order of CATEGORY_LEVELS; -1 for none."""

    product_keys: np.ndarray  # ascending
    codes: np.ndarray

    @classmethod
    def from_catalogue(cls, catalogue: pd.DataFrame) -> Self:
        """Codes from the catalogue: columns product_key, category, subcategory, brand."""
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
        """Codes of these products at each of CATEGORY_LEVELS, (n_products,) each; -1 where there is none."""
        positions = covered_products.find_positions(self.product_keys, product_keys)
        has_codes = positions >= 0
        codes = np.full((len(CATEGORY_LEVELS), len(product_keys)), -1, dtype="int32")
        codes[:, has_codes] = self.codes[positions[has_codes]].T
        return dict(zip(CATEGORY_LEVELS, codes, strict=True))


@dataclass(frozen=True, slots=True)
class CustomerProductWeights:
    """Product weights of n_customers customers, one entry per customer and product.

    customer_index, product_keys and weights: (n_entries,).
    """

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
    """COLUMNS for pairs of a customer and an offer, given by their indices (n_pairs,), as arrays (n_pairs,).

    Product weights (half-life 84 days) are summed by category, then averaged over the offer's categories, weighted by
    each category's share of the sales of the offer's products.
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
    """A code for each pair of codes, (n,)."""
    return np.unique((outer.astype("int64") + 1) * (inner.max(initial=0) + 2) + inner + 1, return_inverse=True)[1]


def _sum_table(rows: np.ndarray, codes: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Sums of values by row and code, as a sparse matrix; entries without a code are left out."""
    has_code = codes >= 0
    return sparse.csr_matrix((values[has_code], (rows[has_code], codes[has_code])), shape=shape)


def _row_shares(table: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each row divided by its sum."""
    total = np.asarray(table.sum(axis=1)).ravel()
    return sparse.diags(np.divide(1.0, total, out=np.zeros(len(total)), where=total > 0)) @ table
