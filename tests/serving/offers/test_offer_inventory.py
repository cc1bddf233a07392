"""The offer inventory is of one state of the database, whatever is loaded while it is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from customers import setup
from customers.catalogue import product_attributes, products
from customers.loading import load
from customers.marketing import offers
from customers.shop.settings import Shop
from serving.offers import offer_inventory

DATES = {"starts_at": "2025-01-01", "ends_at": "2026-01-01"}
SALE = {
    "order_id": "1",
    "line_id": "1",
    "customer_id": "anna",
    "sold_at": "2025-03-01T12:00Z",
    "quantity": 1,
    "amount": 2,
}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Bread costs 2 and earns half of it; the letter is for bread, and for a cake that nobody has bought yet."""
    shop = setup.init_home(tmp_path / "home", timezone="UTC", currency="EUR", now="2025-06-01")
    load.ingest_records(shop, "products", [{"product_id": "bread", "category": "bakery", "price": 2, "cost": 1}])
    load.ingest_records(shop, "transactions", [SALE | {"product_id": "bread"}])
    load.ingest_records(shop, "offers", [DATES | {"offer_id": "letter", "product_ids": ["bread", "cake"]}])
    return shop


def change_everything(shop: Shop) -> None:
    """Bread is sold out, sensitive, of another category and earns nothing; cake is sold; the letter has a twin."""
    load.ingest_records(
        shop,
        "products",
        [{"product_id": "bread", "category": "wine", "price": 2, "cost": 2, "stock": 0, "sensitive": True}],
    )
    load.ingest_records(shop, "transactions", [SALE | {"order_id": "2", "product_id": "cake"}])
    load.ingest_records(shop, "offers", [DATES | {"offer_id": "twin", "product_ids": ["bread"]}])


def contents(inventory: offer_inventory.OfferInventory) -> tuple[Any, ...]:
    return (
        inventory.offer_table.offer_ids,
        len(inventory.catalogue.covered_products),
        inventory.offer_table.is_sold_out.tolist(),
        inventory.offer_table.offers["sensitive"].tolist(),
        len(inventory.sold_out_products),
        len(inventory.sensitive_products),
        inventory.sensitive_categories,
        inventory.margin_by_offer.round(6).tolist(),
    )


BEFORE = (["letter"], 1, [False], [False], 0, 0, frozenset(), [0.5])
# With its cake the letter is not sold out; of the cake no cost is known.
AFTER = (["letter", "twin"], 3, [False, True], [True, True], 1, 1, frozenset({"wine"}), [0.0, 0.0])

#: What is read one after the other, and where.
READERS = [
    (offers, "read_catalogue"),
    (products, "read_never_sold_stubs"),
    (products, "read_sold_out"),
    (offers, "read_ids"),
    (products, "read_sensitive"),
    (products, "read_classifications"),
    (product_attributes, "read_attributes"),
]


@pytest.mark.parametrize(("module", "name"), READERS, ids=[name for _, name in READERS])
def test_a_load_between_two_readers_changes_the_next_inventory_and_not_this_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    read = getattr(module, name)
    pending: list[Callable[[Shop], None]] = [change_everything]

    def read_after_a_load(*args: Any) -> Any:
        if pending:
            pending.pop()(shop)
        return read(*args)

    monkeypatch.setattr(module, name, read_after_a_load)
    assert contents(offer_inventory.load_offer_inventory(shop)) == BEFORE
    assert not pending
    assert contents(offer_inventory.load_offer_inventory(shop)) == AFTER


def test_an_inventory_is_read_once_until_something_changes(shop: Shop) -> None:
    inventory = offer_inventory.load_offer_inventory(shop)
    assert offer_inventory.load_offer_inventory(shop) is inventory
    load.ingest_records(shop, "transactions", [SALE | {"order_id": "2", "product_id": "bread"}])
    assert offer_inventory.load_offer_inventory(shop) is inventory, "nobody has bought the cake"
    load.ingest_records(shop, "transactions", [SALE | {"order_id": "3", "product_id": "cake"}])
    assert len(offer_inventory.load_offer_inventory(shop).catalogue.covered_products) == 2
