"""Item cold start: new products, too recent for factors of their own, get the mean factors of their category."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.arrays import Flags, Floats, Ints
from models.recommender.matrix_factorisation import MatrixFactorisation, Singles
from models.recommender.product_categories import CATEGORY_LEVELS, ProductCategories
from models.recommender.purchase_history import PurchaseHistory

#: More new products than this at once come from a catalogue load, not from a launch.
MAX_NEW_PRODUCTS = 1_000


def add_new_products(
    factorisation: MatrixFactorisation, history: PurchaseHistory, categories: ProductCategories, *, window_days: int
) -> MatrixFactorisation:
    """Add new products to a factorisation, each with the mean factors of its subcategory, else of its category.

    A product is new if it first sold within window_days before the cutoff, to at least two customers, and is not
    factorised yet; for one that never sold, the history cannot show whether it was on sale at a past cutoff. Its
    recent popularity is the lowest of all factorised products, as nothing better is available.
    """
    new_products = _new_products(factorisation, history, window_days)
    factors, has_category = _category_factors(factorisation, categories, new_products)
    new_products, factors = new_products[has_category][-MAX_NEW_PRODUCTS:], factors[has_category][-MAX_NEW_PRODUCTS:]
    if not len(new_products):
        return factorisation
    products = np.concatenate([factorisation.products, new_products])
    order = np.argsort(products)
    lowest_popularity = np.full(len(new_products), factorisation.recent_popularity.min(), np.float32)
    return replace(
        factorisation,
        products=products[order],
        factors=np.concatenate([factorisation.factors, factors.astype(np.float32)])[order],
        recent_popularity=np.concatenate([factorisation.recent_popularity, lowest_popularity])[order],
        new_products=np.sort(new_products),
    )


def _new_products(factorisation: MatrixFactorisation, history: PurchaseHistory, window_days: int) -> Ints:
    sold, position = np.unique(history.products, return_inverse=True)
    first_sold_days = np.zeros(len(sold))
    np.maximum.at(first_sold_days, position, history.columns["first_days"])
    return np.setdiff1d(sold[(first_sold_days <= window_days) & (np.bincount(position) > 1)], factorisation.products)


def _category_factors(
    factorisation: MatrixFactorisation, categories: ProductCategories, new_products: Ints
) -> tuple[Singles, Flags]:
    """Mean factors (n_new, n_factors) of each product's finest category with any, and whether there is one (n_new,)."""
    factors, has_category = (
        np.zeros((len(new_products), factorisation.factors.shape[1]), np.float32),
        np.zeros(len(new_products), bool),
    )
    for level in CATEGORY_LEVELS[:2]:
        means, counts = _mean_factors(factorisation, categories.codes_at_level(factorisation.products, level))
        codes = categories.codes_at_level(new_products, level)
        is_matched = (codes >= 0) & (codes < len(counts)) & ~has_category
        is_matched[is_matched] = counts[codes[is_matched]] > 0
        factors[is_matched] = means[codes[is_matched]]
        has_category |= is_matched
    return factors, has_category


def _mean_factors(factorisation: MatrixFactorisation, codes: Ints) -> tuple[Floats, Floats]:
    has_code = codes >= 0
    size = int(codes.max(initial=-1)) + 1
    counts = np.bincount(codes[has_code], minlength=size).astype(np.float64)
    sums = np.zeros((size, factorisation.factors.shape[1]))
    np.add.at(sums, codes[has_code], factorisation.factors[has_code])
    return sums / np.maximum(counts, 1)[:, None], counts
