"""Loading offers: validation, the offer catalogue, and the products that each offer covers."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from customers.catalogue import products
from customers.database import change_counters
from customers.ledger import interactions
from customers.loading import load
from customers.loading.connectors import complete_journey
from customers.loading.load import LoadResult
from customers.marketing import offers
from customers.shop.settings import Shop

HEADER = "offer_id,campaign_id,starts_at,ends_at,product_ids,categories\n"
Load = Callable[..., LoadResult]


def load_counts(loaded: LoadResult) -> tuple[int, int, int, int]:
    return loaded.inserted, loaded.updated, loaded.unchanged, loaded.rejected


def product_ids_by_offer(shop: Shop, catalogue: offers.OfferCatalogue | None = None) -> dict[str, set[str]]:
    """Each offer's products, by their ids."""
    catalogue = catalogue or offers.load_catalogue(shop)
    names = products.find_ids(shop, catalogue.covered_products["product_key"].tolist())
    pairs = catalogue.covered_products.merge(catalogue.offers[["offer_key", "offer_id"]]).assign(
        product=lambda f: f.product_key.map(names)
    )
    return {offer: set(group) for offer, group in pairs.groupby("offer_id")["product"]}


def test_an_offer_covers_the_products_and_the_categories_that_it_names(corner_shop: Shop, load_text: Load) -> None:
    load_text(corner_shop, "products", "product_id,category\nbrie,cheese\ngouda,cheese\nrye,bread\n")
    lines = "1,c1,2017-11-01,2017-12-01,rye; brie;rye,\n2,c1,2017-11-01,2017-12-01,,cheese;wine\n"
    lines += "3,,2017-11-01,2017-12-01,rye,cheese\n"
    assert load_counts(load_text(corner_shop, "offers", HEADER + lines)) == (3, 0, 0, 0)
    assert product_ids_by_offer(corner_shop) == {
        "1": {"rye", "brie"},
        "2": {"brie", "gouda"},
        "3": {"rye", "brie", "gouda"},
    }
    load_text(corner_shop, "products", "product_id,category\nmerlot,wine\n")
    assert product_ids_by_offer(corner_shop)["2"] == {"brie", "gouda", "merlot"}


def test_an_offer_for_an_unknown_product_creates_a_stub(corner_shop: Shop, load_text: Load) -> None:
    load_text(corner_shop, "products", "product_id\nrye\n")
    loaded = load_text(corner_shop, "offers", HEADER + "1,,2017-11-01,2017-12-01,rye;manna,\n")
    assert (load_counts(loaded), loaded.stubs) == ((1, 0, 0, 0), 1)
    assert product_ids_by_offer(corner_shop) == {"1": {"rye", "manna"}}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("9,,2017-11-01,2017-12-01,,", "neither product_ids nor categories"),
        ("9,,2017-11-01,2017-12-01, ; ,[]", "neither product_ids nor categories"),
        ("9,,2017-11-01,2017-11-01,rye,", "ends_at is not after starts_at"),
        ("9,,2017-11-01,2017-10-01,rye,", "ends_at is not after starts_at"),
        ("9,,,2017-11-01,rye,", "starts_at is empty"),
        (",,2017-11-01,2017-12-01,rye,", "offer_id is empty"),
    ],
)
def test_an_offer_without_products_or_a_valid_period_is_rejected(
    corner_shop: Shop, load_text: Load, line: str, reason: str
) -> None:
    loaded = load_text(corner_shop, "offers", HEADER + f"1,,2017-11-01,2017-12-01,rye,\n{line}\n")
    assert (load_counts(loaded), loaded.reasons) == ((1, 0, 0, 1), {reason: 1})


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("kind", "bribe", "kind is none of coupon, discount, points, bundle, gift"),
        ("channels", "email;pigeon", "channels has something other than"),
        ("audience", "friends", "audience is none of all, received"),
        ("value", "120", "value is more than 100 percent"),
        ("min_spend", "-1", "min_spend is negative"),
        ("budget", "much", "budget is not an amount"),
    ],
)
def test_an_invalid_field_of_an_offer_is_rejected(corner_shop: Shop, name: str, value: str, reason: str) -> None:
    offer = {"offer_id": "1", "starts_at": "2017-11-01", "ends_at": "2017-12-01", "product_ids": ["rye"]}
    result = load.ingest_records(corner_shop, "offers", [offer | {"value_kind": "percent", name: value}])
    assert [error["reason"].startswith(reason) for error in result.errors] == [True]


def test_the_catalogue_has_amounts_in_currency_units_and_times_of_the_shop(corner_shop: Shop) -> None:
    offer = {
        "offer_id": "1",
        "starts_at": "2017-11-01",
        "ends_at": "2017-12-01",
        "product_ids": ["rye"],
        "channels": ["Email", "post", "email"],
        "min_spend": "10.10",
        "value": 2,
        "value_kind": "amount",
    }
    load.ingest_records(corner_shop, "offers", [offer])
    row = offers.load_catalogue(corner_shop).offers.iloc[0]
    assert row["starts_at"] == pd.Timestamp("2017-10-31T23:00Z")  # midnight in Berlin
    assert (row["channels"], row["audience"], row["sensitive"]) == (["email", "post"], "all", False)
    assert (row["min_spend"], row["value"], row["currency"]) == (10.1, 2.0, "EUR")
    assert pd.isna(row["budget"])


def test_the_catalogue_at_a_time_has_the_offers_that_run_then(corner_shop: Shop, load_text: Load) -> None:
    lines = "old,,2017-10-01,2017-11-01,rye,\nnow,,2017-11-01,2017-12-01,rye,\nlong,,2017-10-01,2018-01-01,rye,\n"
    load_text(corner_shop, "offers", HEADER + lines)
    november = datetime(2017, 10, 31, 23, tzinfo=UTC)  # the start of the month in Berlin
    catalogue = offers.load_catalogue(corner_shop).running_at(november)
    assert list(catalogue.offers["offer_id"]) == ["long", "now"]
    assert set(product_ids_by_offer(corner_shop, catalogue)) == {"long", "now"}
    assert len(offers.load_catalogue(corner_shop).offers) == 3


def test_an_empty_shop_has_an_empty_catalogue_with_the_same_columns(corner_shop: Shop) -> None:
    catalogue = offers.load_catalogue(corner_shop)
    assert {name: str(dtype) for name, dtype in catalogue.offers.dtypes.items()} == offers.CATALOGUE_COLUMNS
    assert (len(catalogue.offers), list(catalogue.covered_products), len(catalogue.covered_products)) == (
        0,
        ["offer_key", "product_key"],
        0,
    )


def test_a_changed_offer_replaces_the_old_one_and_an_equal_one_changes_nothing(
    corner_shop: Shop, load_text: Load
) -> None:
    line = HEADER + "1,c1,2017-11-01,2017-12-01,rye;brie,cheese\n"
    load_text(corner_shop, "offers", line)
    before = change_counters.catalogue_version(corner_shop)
    assert load_counts(load_text(corner_shop, "offers", line)) == (0, 0, 1, 0)
    assert change_counters.catalogue_version(corner_shop) == before
    assert load_counts(load_text(corner_shop, "offers", HEADER + "1,c1,2017-11-01,2017-12-01,rye,\n")) == (0, 1, 0, 0)
    assert product_ids_by_offer(corner_shop) == {"1": {"rye"}}
    assert change_counters.catalogue_version(corner_shop) != before


def test_an_offer_on_a_sensitive_product_is_sensitive(corner_shop: Shop, load_text: Load) -> None:
    load_text(corner_shop, "products", "product_id,category,sensitive\npills,health,yes\nrye,bread,no\n")
    lines = "1,,2017-11-01,2017-12-01,rye,\n2,,2017-11-01,2017-12-01,,health\n3,,2017-11-01,2017-12-01,rye;pills,\n"
    load_text(corner_shop, "offers", HEADER + lines)
    assert list(offers.load_catalogue(corner_shop).offers["sensitive"]) == [False, True, True]


def test_the_complete_journeys_coupons_are_offers_to_those_who_received_them(sqlite_shop: Shop, tmp_path: Path) -> None:
    """1,197 coupons of 27 campaigns on 111,332 products in seconds."""
    complete_journey.write_files(tmp_path)
    loaded = {
        kind: load.load_files(sqlite_shop, kind, [tmp_path / f"{kind}.parquet"])
        for kind in ("offers", "consents", "interactions")
    }
    assert {kind: load_counts(counts) for kind, counts in loaded.items()} == {
        "offers": (1_197, 0, 0, 0),
        "consents": (2_469, 0, 0, 0),
        "interactions": (6_589 + 2_102, 0, 0, 0),
    }
    catalogue = offers.load_catalogue(sqlite_shop)
    assert (len(catalogue.covered_products), set(catalogue.offers["audience"])) == (111_332, {"received"})
    redeemed = interactions.load_redemptions(sqlite_shop).merge(catalogue.offers)
    assert len(redeemed) == 2_102
    assert ((redeemed.redeemed_at >= redeemed.starts_at) & (redeemed.redeemed_at < redeemed.ends_at)).all()
