"""The assortment: what the catalogue says of each product, as the shop's rules look at it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from customers.catalogue import product_attributes, products
from customers.loading import load as loading_load
from customers.shop.settings import Shop


@pytest.fixture
def stock(corner_shop: Shop, tmp_path: Path) -> Any:
    """Puts products on the shelves: stock({"product_id": ...}, ...)."""

    def put(*products: dict[str, Any]) -> Shop:
        path = tmp_path / "products.ndjson"
        path.write_text("\n".join(json.dumps(product) for product in products))
        assert loading_load.load_files(corner_shop, "products", [path]).rejected == 0
        return corner_shop

    return put


def key(shop: Shop, product_id: str) -> int:
    return products.find_keys(shop, [product_id])[product_id]


def test_a_margin_is_what_is_left_of_the_price(stock: Any) -> None:
    shop = stock(
        {"product_id": "tea", "price": "4.00", "cost": "3.00"}, {"product_id": "gift", "price": "0", "cost": 1}
    )
    goods = product_attributes.load_attributes(shop)
    assert goods.margin[goods.row_indices(np.array([key(shop, "tea")]))] == (4 - 3) / 4
    assert np.isnan(goods.margin[goods.row_indices(np.array([key(shop, "gift")]))])


def test_stock_that_is_not_counted_is_never_gone(stock: Any) -> None:
    shop = stock({"product_id": "a", "stock": 0}, {"product_id": "b", "stock": 2}, {"product_id": "c"})
    goods = product_attributes.load_attributes(shop)
    assert goods.in_stock[goods.row_indices(np.array([key(shop, name) for name in "abc"]))].tolist() == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("labels", [["Organic", "season"], "organic; Season", '["organic", "season"]'])
def test_labels_are_a_list_or_words_between_semicolons(stock: Any, labels: Any) -> None:
    shop = stock(
        {"product_id": "tea", "labels": labels}, {"product_id": "cup", "labels": "season"}, {"product_id": "tin"}
    )
    goods = product_attributes.load_attributes(shop)
    assert goods.keys_with_labels(["organic"]).tolist() == [key(shop, "tea")]
    assert goods.keys_with_labels(["season", "nobody's"]).tolist() == sorted([key(shop, "tea"), key(shop, "cup")])


def test_a_wait_is_a_number_of_days_or_for_ever(stock: Any) -> None:
    shop = stock(
        {"product_id": "tea"}, {"product_id": "kettle", "repurchase": "never"},
        {"product_id": "filter", "repurchase": "AFTER_DAYS:90"},
    )  # fmt: skip
    waits = product_attributes.load_repurchase_delays(shop)
    found = dict(zip(waits.keys.tolist(), waits.days.tolist(), strict=True))
    assert found == {key(shop, "kettle"): float("inf"), key(shop, "filter"): 90}


def test_a_change_of_the_catalogue_is_noticed(stock: Any) -> None:
    shop = stock({"product_id": "tea", "stock": 1, "category": "Hot drinks"})
    assert product_attributes.load_attributes(shop).in_stock.tolist() == [True]
    stock({"product_id": "tea", "stock": 0})
    goods = product_attributes.load_attributes(shop)
    assert goods.in_stock.tolist() == [False]
    assert goods.category_names == {"hot drinks": 0}


def test_a_shop_without_products_has_an_assortment_of_nothing(corner_shop: Shop) -> None:
    goods = product_attributes.load_attributes(corner_shop)
    assert len(goods.keys) == len(goods.keys_with_labels(["season"])) == 0


def test_products_of_a_category_are_found_whatever_its_capitals_and_blanks(stock: Any) -> None:
    shop = stock(
        {"product_id": "rye", "category": "Bread "}, {"product_id": "bun", "category": "bread"}, {"product_id": "gift"}
    )
    assert product_attributes.load_attributes(shop).keys_in_categories([" BREAD"]).tolist() == sorted(
        key(shop, name) for name in ("rye", "bun")
    )
    assert product_attributes.load_attributes(shop).keys_in_categories(["", "tea"]).tolist() == []
