"""Cold start of products: in a shop of coffee and tea, a new product takes the average of its category."""

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
    """Three customers with months of purchases; two have just bought the new products, one an oddity."""
    products = [COFFEE, MOCHA, TEA, NEW_COFFEE, NEW_TEA]
    lists = {"product_keys": products, "first_days": [200, 200, 200, 9, 9], "weights_84d": [1.0] * 5}
    other_lists = {"product_keys": [COFFEE, MOCHA, ODDITY], "first_days": [200, 200, 3], "weights_84d": [1.0] * 3}
    frame = pd.DataFrame(
        [{"customer_key": 1, **lists}, {"customer_key": 2, **lists}, {"customer_key": 3, **other_lists}]
    )
    factors = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 6.0]], np.float32)
    factorisation = MatrixFactorisation(
        np.array([COFFEE, MOCHA, TEA]), factors, np.array([0.5, -0.5, 0.1], np.float32), 1.0, 84
    )
    return factorisation, purchase_history.read(frame, ["first_days", "weights_84d"])


def test_a_new_product_has_mean_factors_of_its_subcategory_else_category_and_the_lowest_popularity():
    factorisation, history = shop()
    extended = cold_start.add_new_products(
        factorisation, history, ProductCategories.from_catalogue(CATALOGUE), window_days=28
    )
    assert extended.products.tolist() == [COFFEE, MOCHA, TEA, NEW_COFFEE, NEW_TEA]
    np.testing.assert_allclose(extended.factors[3], [(1 + 3) / 2, 0])
    np.testing.assert_allclose(extended.factors[4], [(1 + 3 + 0) / 3, 6 / 3])
    assert extended.recent_popularity[3:].tolist() == [-0.5, -0.5]
    assert factorisation.new_products.tolist() == []
    assert (
        MatrixFactorisation.from_arrays(extended.arrays()).new_products.tolist()
        == extended.new_products.tolist()
        == [NEW_COFFEE, NEW_TEA]
    )


def test_a_product_that_never_sold_or_has_one_buyer_is_not_added():
    factorisation, history = shop()
    later_catalogue = pd.concat([CATALOGUE, CATALOGUE.head(1).assign(product_key=99)], ignore_index=True)
    extended = cold_start.add_new_products(
        factorisation, history, ProductCategories.from_catalogue(later_catalogue), window_days=28
    )
    assert not {99, ODDITY} & set(extended.products.tolist())


def test_without_a_catalogue_no_product_is_added():
    factorisation, history = shop()
    assert (
        cold_start.add_new_products(factorisation, history, ProductCategories.from_catalogue(None), window_days=28)
        is factorisation
    )
