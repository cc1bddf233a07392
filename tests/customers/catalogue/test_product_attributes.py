"""Product attributes of the catalogue, as the merchandising rules read them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from customers.catalogue import product_attributes, products
from customers.loading import load
from customers.shop.settings import Shop


@pytest.fixture
def load_products(corner_shop: Shop, tmp_path: Path) -> Any:
    """Loads products into the catalogue: load_products({"product_id": ...}, ...)."""

    def load_json(*products: dict[str, Any]) -> Shop:
        path = tmp_path / "products.ndjson"
        path.write_text("\n".join(json.dumps(product) for product in products))
        assert load.load_files(corner_shop, "products", [path]).rejected == 0
        return corner_shop

    return load_json


def key(shop: Shop, product_id: str) -> int:
    return products.find_keys(shop, [product_id])[product_id]


def test_a_margin_is_the_share_of_the_price_above_cost(load_products: Any) -> None:
    shop = load_products(
        {"product_id": "tea", "price": "4.00", "cost": "3.00"}, {"product_id": "gift", "price": "0", "cost": 1}
    )
    attributes = product_attributes.load_attributes(shop)
    assert attributes.margin[attributes.row_indices(np.array([key(shop, "tea")]))] == (4 - 3) / 4
    assert np.isnan(attributes.margin[attributes.row_indices(np.array([key(shop, "gift")]))])


def test_a_product_without_a_stock_count_is_in_stock(load_products: Any) -> None:
    shop = load_products({"product_id": "a", "stock": 0}, {"product_id": "b", "stock": 2}, {"product_id": "c"})
    attributes = product_attributes.load_attributes(shop)
    assert attributes.in_stock[attributes.row_indices(np.array([key(shop, name) for name in "abc"]))].tolist() == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("labels", [["Organic", "season"], "organic; Season", '["organic", "season"]'])
def test_labels_are_a_list_or_words_between_semicolons(load_products: Any, labels: Any) -> None:
    shop = load_products(
        {"product_id": "tea", "labels": labels}, {"product_id": "cup", "labels": "season"}, {"product_id": "tin"}
    )
    attributes = product_attributes.load_attributes(shop)
    assert attributes.keys_with_labels(["organic"]).tolist() == [key(shop, "tea")]
    assert attributes.keys_with_labels(["season", "nobody's"]).tolist() == sorted([key(shop, "tea"), key(shop, "cup")])


def test_a_repurchase_delay_is_a_number_of_days_or_infinite(load_products: Any) -> None:
    shop = load_products(
        {"product_id": "tea"}, {"product_id": "kettle", "repurchase": "never"},
        {"product_id": "filter", "repurchase": "AFTER_DAYS:90"},
    )  # fmt: skip
    delays = product_attributes.load_repurchase_delays(shop)
    days_by_key = dict(zip(delays.keys.tolist(), delays.days.tolist(), strict=True))
    assert days_by_key == {key(shop, "kettle"): float("inf"), key(shop, "filter"): 90}


def test_attributes_follow_a_change_of_the_catalogue(load_products: Any) -> None:
    shop = load_products({"product_id": "tea", "stock": 1, "category": "Hot drinks"})
    assert product_attributes.load_attributes(shop).in_stock.tolist() == [True]
    load_products({"product_id": "tea", "stock": 0})
    attributes = product_attributes.load_attributes(shop)
    assert attributes.in_stock.tolist() == [False]
    assert attributes.category_names == {"hot drinks": 0}


def test_a_shop_without_products_has_no_attributes(corner_shop: Shop) -> None:
    attributes = product_attributes.load_attributes(corner_shop)
    assert len(attributes.keys) == len(attributes.keys_with_labels(["season"])) == 0


def test_categories_match_whatever_their_case_and_blanks(load_products: Any) -> None:
    shop = load_products(
        {"product_id": "rye", "category": "Bread "}, {"product_id": "bun", "category": "bread"}, {"product_id": "gift"}
    )
    assert product_attributes.load_attributes(shop).keys_in_categories([" BREAD"]).tolist() == sorted(
        key(shop, name) for name in ("rye", "bun")
    )
    assert product_attributes.load_attributes(shop).keys_in_categories(["", "tea"]).tolist() == []
