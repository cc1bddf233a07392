"""Two customers and four products: every figure is worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from models.recommender import product_statistics, purchase_history, ranked_lists, ranking_features
from models.recommender.matrix_factorisation import MatrixFactorisation
from models.recommender.product_categories import ProductCategories
from models.recommender.ranking_features import ProductContext

MILK, SKIMMED, SOAP, HONEY = 1, 2, 3, 4
HALF_LIVES = (28, 120)
CATALOGUE = pd.DataFrame({
    "product_key": [MILK, SKIMMED, SOAP],
    "category": ["dairy", "dairy", "care"],
    "subcategory": ["milk", "milk", "soap"],
    "department": ["food", "food", "drugs"],
    "brand": [None, "acme", "acme"],
})  # fmt: skip
#: Ann bought milk on three days, 40, 20 and 6 days ago, and soap 30 days ago; Bob skimmed milk yesterday.
ANN = {"product_keys": [MILK, SOAP], "times": [3, 1], "last_days": [6, 30], "first_days": [40, 30]}
BOB = {"product_keys": [SKIMMED], "times": [1], "last_days": [1], "first_days": [1]}
DAYS = {MILK: (40, 20, 6), SOAP: (30,), SKIMMED: (1,)}


def weight(product: int, half_life: int) -> float:
    return sum(0.5 ** (days / half_life) for days in DAYS[product])


@pytest.fixture
def stock() -> purchase_history.PurchaseHistory:
    rows = []
    for key, lists in enumerate((ANN, BOB), start=1):
        weights = {
            f"weights_{days}d": [weight(product, days) for product in lists["product_keys"]] for days in HALF_LIVES
        }
        rows.append({"customer_key": key, **lists, **weights})
    return purchase_history.read(pd.DataFrame(rows), ranking_features.history_columns(HALF_LIVES))


@pytest.fixture
def known(stock) -> ProductContext:
    factors = np.array([[1.0], [0.8], [0.1]], np.float32)
    tastes = MatrixFactorisation(np.array([MILK, SKIMMED, SOAP]), factors, np.zeros(3, np.float32), 1.0, 120)
    return ProductContext(
        HALF_LIVES,
        product_statistics.compute_statistics(stock, HALF_LIVES, window_days=28),
        ProductCategories.from_catalogue(CATALOGUE),
        tastes,
    )


def test_demand_counts_owners_late_buyers_and_gaps(stock):
    measured = product_statistics.compute_statistics(stock, HALF_LIVES, window_days=28, prior_weight=1e-12).columns_for(
        np.array([MILK, SOAP])
    )
    np.testing.assert_allclose(np.exp(measured["popular"]), [(1 + 1) / (2 + 1), (0 + 1) / (2 + 1)])
    np.testing.assert_allclose(np.exp(measured["popular_week"]), [(1 + 1) / (2 + 1), (0 + 1) / (2 + 1)])
    np.testing.assert_allclose(np.exp(measured["often"]), [(3 + 1) / (1 + 1), (1 + 1) / (1 + 1)])
    np.testing.assert_allclose(np.exp(measured["repeated"][0]), 1 / 1)
    short, long = (weight(MILK, days) for days in HALF_LIVES)
    np.testing.assert_allclose(np.exp(measured["trend"][0]), (short + 0.5) / (long + 0.5))
    assert measured["gap_days"][0] == (40 - 6) / 2


def test_few_owners_are_drawn_to_what_is_usual(stock):
    usual = (2 + 0.5) / (3 + 1)  # milk and skimmed milk were bought within 28 days, by their only owners
    lately = product_statistics.compute_statistics(stock, HALF_LIVES, window_days=28, prior_weight=5.0).columns_for(
        np.array([MILK, SOAP, HONEY])
    )["lately"]
    np.testing.assert_allclose(np.exp(lately), [(1 + 5 * usual) / (1 + 5), (0 + 5 * usual) / (1 + 5), usual])


def test_kinds_are_numbered_within_their_category_and_unknown_ones_are_nobodys():
    told = pd.DataFrame({"product_key": [5, 6, 7], "category": ["dairy", "care", ""], "subcategory": ["other"] * 3})
    kinds = ProductCategories.from_catalogue(told.assign(department=None, brand=None))
    fine = kinds.codes_at_level(np.array([5, 6, HONEY]), "subcategory")
    assert fine[0] != fine[1]
    assert fine[2] == -1
    assert (kinds.codes_at_level(np.array([5, 7, HONEY]), "category") >= 0).tolist() == [True, False, False]
    assert kinds.codes_at_level(np.array([5]), "brand").tolist() == [-1]


def test_a_shelf_holds_of_a_sort_what_all_its_products_add_up_to(stock, known):
    scene = known.ranking_context(stock)
    rows, products = np.array([0, 0, 1, 1, 0]), np.array([MILK, SKIMMED, MILK, SOAP, HONEY])
    codes = known.categories.codes_at_level(products, "subcategory")
    mine = scene.category_totals("subcategory", codes).lookup(rows, codes)
    np.testing.assert_allclose(mine["long"][:4], [weight(MILK, 120), weight(MILK, 120), weight(SKIMMED, 120), 0.0])
    np.testing.assert_array_equal(mine["last_days"], [6, 6, 1, np.nan, np.nan])
    np.testing.assert_array_equal(mine["products"], [1, 1, 1, 0, np.nan])


def test_what_is_held_of_one_sort_is_the_same_whatever_else_is_asked_about(stock, known):
    scene, rows = known.ranking_context(stock), np.array([0, 1])
    every = known.categories.codes_at_level(np.array([MILK, SKIMMED, SOAP]), "subcategory")
    (milk,) = known.categories.codes_at_level(np.array([MILK]), "subcategory")
    alone, among = (scene.category_totals("subcategory", asked).lookup(rows, np.array([milk] * 2)) for asked in (every[:1], every))
    for name, numbers in alone.items():
        np.testing.assert_array_equal(numbers, among[name])
    assert np.isfinite(alone["long"]).all()


def test_the_standing_of_a_product_is_its_share_of_what_sold_of_its_sort(known):
    # Milk and skimmed milk have one late buyer each: (1 + 1) / (2 + 1) against as much.
    np.testing.assert_allclose(known.share_of_category(np.array([MILK, SOAP]), "subcategory"), [0.5, 1.0])
    assert np.isnan(known.share_of_category(np.array([HONEY]), "subcategory")).all()


def test_figures_of_owned_and_of_new_products_are_rows_of_numbers_in_the_order_asked(stock, known):
    scene = known.ranking_context(stock)
    own = ranking_features.own_product_features(scene, np.array([0, 2])).values
    both = ranking_features.own_product_features(scene, np.array([2, 0])).values
    np.testing.assert_array_equal(own, both[::-1])
    found = ranked_lists.RankedProducts(
        np.array([1]), np.array([MILK]), np.array([0.4]), np.zeros(1, np.int8), np.zeros(1, np.int64)
    )
    fresh = ranking_features.new_product_features(scene, found).values
    assert fresh.shape[0] == 1
    assert np.float32(0.4) in fresh


def test_what_others_do_not_know_of_a_customer_does_not_change_their_figures(stock, known):
    alone = purchase_history.read(
        pd.DataFrame([{"customer_key": 2, **BOB, **{f"weights_{d}d": [weight(SKIMMED, d)] for d in HALF_LIVES}}]),
        ranking_features.history_columns(HALF_LIVES),
    )
    np.testing.assert_array_equal(
        ranking_features.own_product_features(known.ranking_context(alone), np.array([0])).values,
        ranking_features.own_product_features(known.ranking_context(stock), np.array([2])).values,
    )


def test_what_is_kept_as_arrays_is_the_same_again(known, stock):
    again = ProductContext.from_arrays(known.arrays())
    np.testing.assert_array_equal(
        ranking_features.own_product_features(again.ranking_context(stock), np.arange(3)).values,
        ranking_features.own_product_features(known.ranking_context(stock), np.arange(3)).values,
    )
