"""Category affinity: how much a customer buys of the categories of an offer's products, computed by hand."""

import numpy as np
import pandas as pd
import pytest

from features.offers import affinity
from features.offers.category_affinity import ProductCategoryCodes

AS_OF = pd.Timestamp("2026-07-01", tz="UTC")
MILK, OAT_MILK, CHEESE, BREAD, UNCATEGORISED = 1, 2, 3, 4, 5
OAT, BAKERY, MIXED = 10, 20, 30
CATALOGUE = pd.DataFrame(
    {
        "product_key": [MILK, OAT_MILK, CHEESE, BREAD, UNCATEGORISED],
        "category": ["dairy", "dairy", "dairy", "bakery", None],
        "subcategory": ["milk", "milk", "cheese", "loaves", None],
        "brand": ["Hill", "Oatly", "Hill", "Mill", None],
    }
)
COVERS = pd.DataFrame(
    {"offer_key": [OAT, BAKERY, MIXED, MIXED, MIXED], "product_key": [OAT_MILK, BREAD, MILK, CHEESE, BREAD]}
)
OFFERS = pd.DataFrame(
    {"offer_key": [OAT, BAKERY, MIXED], "campaign_id": "k", "value": np.nan, "value_kind": [None, None, None]}
)
PRICES = pd.DataFrame(
    {"product_key": [MILK, OAT_MILK, CHEESE, BREAD], "event_timestamp": AS_OF, "price": 1.0, "sold": [60, 10, 20, 20]}
)


def affinity_by_offer(catalogue: ProductCategoryCodes | None, keys: list[int] | None = None) -> dict[int, pd.Series]:
    """Affinity features by offer of a customer who bought milk (weight 4), cheese (2), an uncategorised product (1).

    Of the lines sold, 60 were of milk, 10 of oat milk, 20 of cheese and 20 of bread.
    """
    history = {
        "product_keys": keys or [MILK, CHEESE, UNCATEGORISED], "weights_28d": [2.0, 1.0, 1.0],
        "weights_84d": [4.0, 2.0, 1.0], "weights_120d": [5.0, 3.0, 1.0], "times": [6, 3, 1], "last_days": [5, 9, 3],
    }  # fmt: skip
    row = {name: [np.array(values)] for name, values in history.items()}
    customer_features = pd.DataFrame({"customer_key": [7], "as_of": [AS_OF], **row})
    pairs = pd.DataFrame({"customer_key": 7, "as_of": AS_OF, "offer_key": [OAT, BAKERY, MIXED]})
    features = affinity.build_affinity_features(customer_features, pairs, COVERS, OFFERS, PRICES, catalogue)
    return {row.offer_key: row for row in features.itertuples()}


def test_an_offer_on_a_product_never_bought_counts_purchases_of_its_category() -> None:
    oat = affinity_by_offer(ProductCategoryCodes.from_catalogue(CATALOGUE))[OAT]
    assert (oat.affinity_84d, oat.category_sold, oat.subcategory_sold, oat.line_sold) == (0, 4 + 2, 4, 0)


def test_an_offer_of_several_categories_weights_each_by_its_share_of_sales() -> None:
    mixed = affinity_by_offer(ProductCategoryCodes.from_catalogue(CATALOGUE))[MIXED]
    assert mixed.subcategory_sold == pytest.approx((60 * 4 + 20 * 2 + 20 * 0) / (60 + 20 + 20))
    assert mixed.category_sold == pytest.approx((60 + 20) / (60 + 20 + 20) * (4 + 2))


def test_a_category_never_bought_counts_as_zero() -> None:
    bakery = affinity_by_offer(ProductCategoryCodes.from_catalogue(CATALOGUE))[BAKERY]
    assert (bakery.category_sold, bakery.subcategory_sold, bakery.line_sold) == (0, 0, 0)


def test_equal_subcategories_of_two_categories_differ() -> None:
    same_subcategory = CATALOGUE.assign(subcategory=["other", "other", "other", "other", None])
    codes = ProductCategoryCodes.from_catalogue(same_subcategory)
    milk, bread = codes.codes_for(np.array([MILK, BREAD]))["subcategory"]
    assert milk != bread
    assert codes.codes_for(np.array([UNCATEGORISED, 99]))["category"].tolist() == [-1, -1]


def test_without_a_catalogue_the_category_features_are_missing() -> None:
    assert np.isnan(affinity_by_offer(None)[OAT].category_sold)
    uncatalogued = affinity_by_offer(ProductCategoryCodes.from_catalogue(CATALOGUE.head(0)))[OAT]
    assert (uncatalogued.category_sold, uncatalogued.line_sold) == (0, 0)
