"""Ranking features of two customers and four products, each computed by hand."""

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
def history() -> purchase_history.PurchaseHistory:
    rows = []
    for key, lists in enumerate((ANN, BOB), start=1):
        weights = {
            f"weights_{days}d": [weight(product, days) for product in lists["product_keys"]] for days in HALF_LIVES
        }
        rows.append({"customer_key": key, **lists, **weights})
    return purchase_history.read(pd.DataFrame(rows), ranking_features.history_columns(HALF_LIVES))


@pytest.fixture
def context(history) -> ProductContext:
    factors = np.array([[1.0], [0.8], [0.1]], np.float32)
    factorisation = MatrixFactorisation(np.array([MILK, SKIMMED, SOAP]), factors, np.zeros(3, np.float32), 1.0, 120)
    return ProductContext(
        HALF_LIVES,
        product_statistics.compute_statistics(history, HALF_LIVES, window_days=28),
        ProductCategories.from_catalogue(CATALOGUE),
        factorisation,
    )


def test_product_statistics_count_owners_recent_buyers_and_gaps(history):
    statistics = product_statistics.compute_statistics(
        history, HALF_LIVES, window_days=28, prior_weight=1e-12
    ).columns_for(np.array([MILK, SOAP]))
    np.testing.assert_allclose(np.exp(statistics["popular"]), [(1 + 1) / (2 + 1), (0 + 1) / (2 + 1)])
    np.testing.assert_allclose(np.exp(statistics["popular_week"]), [(1 + 1) / (2 + 1), (0 + 1) / (2 + 1)])
    np.testing.assert_allclose(np.exp(statistics["often"]), [(3 + 1) / (1 + 1), (1 + 1) / (1 + 1)])
    np.testing.assert_allclose(np.exp(statistics["repeated"][0]), 1 / 1)
    short, long = (weight(MILK, days) for days in HALF_LIVES)
    np.testing.assert_allclose(np.exp(statistics["trend"][0]), (short + 0.5) / (long + 0.5))
    assert statistics["gap_days"][0] == (40 - 6) / 2


def test_products_of_few_owners_are_shrunk_to_the_average(history):
    average = (2 + 0.5) / (3 + 1)  # milk and skimmed milk were bought within 28 days, by their only owners
    recent_buyers = product_statistics.compute_statistics(
        history, HALF_LIVES, window_days=28, prior_weight=5.0
    ).columns_for(np.array([MILK, SOAP, HONEY]))["lately"]
    np.testing.assert_allclose(
        np.exp(recent_buyers), [(1 + 5 * average) / (1 + 5), (0 + 5 * average) / (1 + 5), average]
    )


def test_subcategories_are_numbered_within_their_category_and_unknown_ones_have_no_code():
    catalogue = pd.DataFrame(
        {"product_key": [5, 6, 7], "category": ["dairy", "care", ""], "subcategory": ["other"] * 3}
    )
    categories = ProductCategories.from_catalogue(catalogue.assign(department=None, brand=None))
    codes = categories.codes_at_level(np.array([5, 6, HONEY]), "subcategory")
    assert codes[0] != codes[1]
    assert codes[2] == -1
    assert (categories.codes_at_level(np.array([5, 7, HONEY]), "category") >= 0).tolist() == [True, False, False]
    assert categories.codes_at_level(np.array([5]), "brand").tolist() == [-1]


def test_category_totals_of_a_customer_add_up_the_products_of_the_category(history, context):
    ranking_context = context.ranking_context(history)
    rows, products = np.array([0, 0, 1, 1, 0]), np.array([MILK, SKIMMED, MILK, SOAP, HONEY])
    codes = context.categories.codes_at_level(products, "subcategory")
    totals = ranking_context.category_totals("subcategory", codes).lookup(rows, codes)
    np.testing.assert_allclose(totals["long"][:4], [weight(MILK, 120), weight(MILK, 120), weight(SKIMMED, 120), 0.0])
    np.testing.assert_array_equal(totals["last_days"], [6, 6, 1, np.nan, np.nan])
    np.testing.assert_array_equal(totals["products"], [1, 1, 1, 0, np.nan])


def test_the_totals_of_one_category_are_the_same_whatever_others_are_requested(history, context):
    ranking_context, rows = context.ranking_context(history), np.array([0, 1])
    all_codes = context.categories.codes_at_level(np.array([MILK, SKIMMED, SOAP]), "subcategory")
    (milk,) = context.categories.codes_at_level(np.array([MILK]), "subcategory")
    alone, together = (
        ranking_context.category_totals("subcategory", codes).lookup(rows, np.array([milk] * 2))
        for codes in (all_codes[:1], all_codes)
    )
    for name, numbers in alone.items():
        np.testing.assert_array_equal(numbers, together[name])
    assert np.isfinite(alone["long"]).all()


def test_the_share_of_a_product_is_that_of_its_categorys_sales(context):
    # Milk and skimmed milk have one recent buyer each: (1 + 1) / (2 + 1) against the same.
    np.testing.assert_allclose(context.share_of_category(np.array([MILK, SOAP]), "subcategory"), [0.5, 1.0])
    assert np.isnan(context.share_of_category(np.array([HONEY]), "subcategory")).all()


def test_features_of_owned_and_of_new_products_are_rows_in_the_requested_order(history, context):
    ranking_context = context.ranking_context(history)
    own_features = ranking_features.own_product_features(ranking_context, np.array([0, 2])).values
    reordered = ranking_features.own_product_features(ranking_context, np.array([2, 0])).values
    np.testing.assert_array_equal(own_features, reordered[::-1])
    candidates = ranked_lists.RankedProducts(
        np.array([1]), np.array([MILK]), np.array([0.4]), np.zeros(1, np.int8), np.zeros(1, np.int64)
    )
    new_features = ranking_features.new_product_features(ranking_context, candidates).values
    assert new_features.shape[0] == 1
    assert np.float32(0.4) in new_features


def test_the_features_of_a_customer_do_not_depend_on_who_else_is_in_the_frame(history, context):
    alone = purchase_history.read(
        pd.DataFrame([{"customer_key": 2, **BOB, **{f"weights_{d}d": [weight(SKIMMED, d)] for d in HALF_LIVES}}]),
        ranking_features.history_columns(HALF_LIVES),
    )
    np.testing.assert_array_equal(
        ranking_features.own_product_features(context.ranking_context(alone), np.array([0])).values,
        ranking_features.own_product_features(context.ranking_context(history), np.array([2])).values,
    )


def test_a_context_saved_as_arrays_gives_the_same_features(context, history):
    loaded = ProductContext.from_arrays(context.arrays())
    np.testing.assert_array_equal(
        ranking_features.own_product_features(loaded.ranking_context(history), np.arange(3)).values,
        ranking_features.own_product_features(context.ranking_context(history), np.arange(3)).values,
    )
