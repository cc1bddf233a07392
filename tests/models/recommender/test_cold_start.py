"""A shop of coffee and tea: what has just arrived is taken for what is usual of its kind."""

import numpy as np
import pandas as pd

from models.recommender import cold_start, purchase_history
from models.recommender.matrix_factorisation import MatrixFactorisation
from models.recommender.product_categories import ProductCategories

COFFEE, MOCHA, TEA, NEW_COFFEE, NEW_TEA, ODDITY = 1, 2, 3, 7, 8, 9
CATALOGUE = pd.DataFrame({
    "product_key": [COFFEE, MOCHA, TEA, NEW_COFFEE, NEW_TEA, ODDITY],
    "category": ["drinks", "drinks", "drinks", "drinks", "drinks", None],
    "subcategory": ["coffee", "coffee", "tea", "coffee", "herbal", None],
    "department": None,
    "brand": None,
})  # fmt: skip


def shop() -> tuple[MatrixFactorisation, purchase_history.PurchaseHistory]:
    """Three customers have bought three products for months; two have just tried what is new, one an oddity."""
    products = [COFFEE, MOCHA, TEA, NEW_COFFEE, NEW_TEA]
    lists = {"product_keys": products, "first_days": [200, 200, 200, 9, 9], "weights_84d": [1.0] * 5}
    old = {"product_keys": [COFFEE, MOCHA, ODDITY], "first_days": [200, 200, 3], "weights_84d": [1.0] * 3}
    frame = pd.DataFrame([{"customer_key": 1, **lists}, {"customer_key": 2, **lists}, {"customer_key": 3, **old}])
    factors = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 6.0]], np.float32)
    known = MatrixFactorisation(
        np.array([COFFEE, MOCHA, TEA]), factors, np.array([0.5, -0.5, 0.1], np.float32), 1.0, 84
    )
    return known, purchase_history.read(frame, ["first_days", "weights_84d"])


def test_a_newcomer_has_the_mean_factors_of_its_subcategory_else_of_its_category_and_the_coldest_heat():
    known, stock = shop()
    welcomed = cold_start.add_new_products(known, stock, ProductCategories.from_catalogue(CATALOGUE), window_days=28)
    assert welcomed.products.tolist() == [COFFEE, MOCHA, TEA, NEW_COFFEE, NEW_TEA]
    np.testing.assert_allclose(welcomed.factors[3], [(1 + 3) / 2, 0])
    np.testing.assert_allclose(welcomed.factors[4], [(1 + 3 + 0) / 3, 6 / 3])
    assert welcomed.recent_popularity[3:].tolist() == [-0.5, -0.5]
    assert known.new_products.tolist() == []
    assert (
        MatrixFactorisation.from_arrays(welcomed.arrays()).new_products.tolist()
        == welcomed.new_products.tolist()
        == [NEW_COFFEE, NEW_TEA]
    )


def test_what_never_sold_is_not_known_at_a_past_moment_and_one_buyer_makes_no_newcomer():
    known, stock = shop()
    later = pd.concat([CATALOGUE, CATALOGUE.head(1).assign(product_key=99)], ignore_index=True)
    welcomed = cold_start.add_new_products(known, stock, ProductCategories.from_catalogue(later), window_days=28)
    assert not {99, ODDITY} & set(welcomed.products.tolist())


def test_without_a_catalogue_nobody_is_welcomed():
    known, stock = shop()
    assert cold_start.add_new_products(known, stock, ProductCategories.from_catalogue(None), window_days=28) is known
