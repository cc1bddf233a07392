"""Sorts: how much somebody buys of what an offer's products are, worked out by hand for a small shop."""

import numpy as np
import pandas as pd
import pytest

from features.offers import affinity
from features.offers.category_affinity import ProductCategoryCodes

AS_OF = pd.Timestamp("2026-07-01", tz="UTC")
MILK, OAT_MILK, CHEESE, BREAD, NAMELESS = 1, 2, 3, 4, 5
OAT, BAKERY, MIXED = 10, 20, 30
CATALOGUE = pd.DataFrame(
    {
        "product_key": [MILK, OAT_MILK, CHEESE, BREAD, NAMELESS],
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


def appeals(catalogue: ProductCategoryCodes | None, keys: list[int] | None = None) -> dict[int, pd.Series]:
    """What each offer means to one who bought milk (weight 4), cheese (2) and something nameless (1).

    Of the lines sold, 60 were of milk, 10 of oat milk, 20 of cheese and 20 of bread.
    """
    shelf = {
        "product_keys": keys or [MILK, CHEESE, NAMELESS], "weights_28d": [2.0, 1.0, 1.0],
        "weights_84d": [4.0, 2.0, 1.0], "weights_120d": [5.0, 3.0, 1.0], "times": [6, 3, 1], "last_days": [5, 9, 3],
    }  # fmt: skip
    row = {name: [np.array(values)] for name, values in shelf.items()}
    figures = pd.DataFrame({"customer_key": [7], "as_of": [AS_OF], **row})
    wanted = pd.DataFrame({"customer_key": 7, "as_of": AS_OF, "offer_key": [OAT, BAKERY, MIXED]})
    found = affinity.build_affinity_features(figures, wanted, COVERS, OFFERS, PRICES, catalogue)
    return {row.offer_key: row for row in found.itertuples()}


def test_an_offer_on_a_product_never_bought_speaks_to_who_buys_its_like() -> None:
    oat = appeals(ProductCategoryCodes.from_catalogue(CATALOGUE))[OAT]
    assert (oat.affinity_84d, oat.category_sold, oat.subcategory_sold, oat.line_sold) == (0, 4 + 2, 4, 0)


def test_an_offer_of_many_sorts_counts_each_by_its_share_of_sales() -> None:
    mixed = appeals(ProductCategoryCodes.from_catalogue(CATALOGUE))[MIXED]
    assert mixed.subcategory_sold == pytest.approx((60 * 4 + 20 * 2 + 20 * 0) / (60 + 20 + 20))
    assert mixed.category_sold == pytest.approx((60 + 20) / (60 + 20 + 20) * (4 + 2))


def test_of_a_sort_that_was_never_bought_nothing_is_bought() -> None:
    bakery = appeals(ProductCategoryCodes.from_catalogue(CATALOGUE))[BAKERY]
    assert (bakery.category_sold, bakery.subcategory_sold, bakery.line_sold) == (0, 0, 0)


def test_a_subcategory_is_one_only_within_its_category() -> None:
    same_word = CATALOGUE.assign(subcategory=["other", "other", "other", "other", None])
    codes = ProductCategoryCodes.from_catalogue(same_word)
    milk, bread = codes.codes_for(np.array([MILK, BREAD]))["subcategory"]
    assert milk != bread
    assert codes.codes_for(np.array([NAMELESS, 99]))["category"].tolist() == [-1, -1]


def test_without_a_catalogue_nothing_is_known_of_an_offers_kin() -> None:
    assert np.isnan(appeals(None)[OAT].category_sold)
    silent = appeals(ProductCategoryCodes.from_catalogue(CATALOGUE.head(0)))[OAT]
    assert (silent.category_sold, silent.line_sold) == (0, 0)
