"""Tombstones of a newer database, in an older one: who was erased since is recognised, and stays away."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from customers import setup
from customers.database import engine
from customers.loading.load import LoadResult
from customers.people import lookup
from customers.privacy import erasure, tombstones
from customers.shop.settings import Shop

Load = Callable[..., LoadResult]


def test_customers_are_recognised_by_the_tombstones_of_another_database(
    corner_shop: Shop, load_text: Load, tmp_path: Path
) -> None:
    """The same key, as in a backup of one shop; a customer of another source with the same id is another person."""
    newer = replace(setup.init_home(tmp_path / "newer"), key=corner_shop.key)
    for shop in (newer, corner_shop):
        load_text(shop, "customers", "customer_id\nanna\nben\n")
        load_text(shop, "customers", "customer_id\nanna\n", source="web")
    erasure.erase_customer(newer, "files:anna")
    digests = tombstones.load_tombstones(newer)
    assert len(digests) == 1
    assert tombstones.customers_with_tombstones(corner_shop, digests.keys()) == ["files:anna"]
    assert tombstones.restore_tombstones(corner_shop, digests) == 1
    assert tombstones.restore_tombstones(corner_shop, digests) == 0
    assert tombstones.load_tombstones(corner_shop) == digests


def test_a_restored_tombstone_keeps_an_old_file_from_bringing_the_customer_back(
    corner_shop: Shop, load_text: Load
) -> None:
    load_text(corner_shop, "customers", "customer_id\nanna\n")
    erasure.erase_customer(corner_shop, "anna")
    digests = tombstones.load_tombstones(corner_shop)
    with engine.write_transaction(corner_shop) as connection:
        connection.exec_driver_sql("delete from erased")
    tombstones.restore_tombstones(corner_shop, digests)
    assert load_text(corner_shop, "customers", "customer_id\nanna\nben\n").rejected == 1
    assert set(lookup.find_keys(corner_shop, ["anna", "ben"])) == {"ben"}


def test_without_erasures_nobody_is_recognised(corner_shop: Shop, load_text: Load) -> None:
    load_text(corner_shop, "customers", "customer_id\nanna\n")
    assert tombstones.load_tombstones(corner_shop) == {}
    assert tombstones.customers_with_tombstones(corner_shop, {b"x" * 32}) == []
    assert tombstones.restore_tombstones(corner_shop, {}) == 0
