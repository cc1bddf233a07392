"""What is sensitive counts for nobody's numbers, unless they allow it."""

import pandas as pd
import pytest

from features.engine import ledger_lines
from features.snapshots import snapshot

ALLOWS, SILENT, UNKNOWN = 1, 2, 3
PRODUCTS = [
    {"product_key": 1, "category": "bread", "sensitive": False},
    {"product_key": 2, "category": "health", "sensitive": True},
]


@pytest.fixture
def sold(ledger_kit):
    return [
        ledger_kit.line(customer, ledger_kit.at(f"2026-05-0{product} 10:00"), 5.0, product_key=product)
        for customer in (ALLOWS, SILENT, UNKNOWN) for product in (1, 2)
    ]  # fmt: skip


def consents(**allowed: bool) -> list[dict]:
    keys = {"allows": ALLOWS, "silent": SILENT}
    return [
        {"customer_key": keys[name], "profiling": True, "profiling_sensitive": yes} for name, yes in allowed.items()
    ]


def snapped(ledger, out, ledger_kit) -> pd.DataFrame:
    as_of = ledger_kit.at("2026-06-01 00:00")
    snapshot.write_snapshot(ledger, out, as_of=as_of, cutoffs=[as_of], timezone="UTC")
    parts = [pd.read_parquet(out / family / "part.parquet") for family in ("spend", "shelf", "needs")]
    first, *others = [part.set_index("customer_key").drop(columns=["event_timestamp", "created"]) for part in parts]
    return first.join(others)


def test_only_who_allows_it_is_seen_with_what_is_sensitive(shop, sold, ledger_kit, tmp_path) -> None:
    ledger = shop(sold, products=PRODUCTS, consents=consents(allows=True, silent=False))
    found = snapped(ledger, tmp_path, ledger_kit)
    assert found.spend_total.to_dict() == {ALLOWS: 10, SILENT: 5, UNKNOWN: 5}
    assert [sorted(keys) for keys in found.product_keys] == [[1, 2], [1], [1]]
    assert [sorted(words) for words in found.categories] == [["bread", "health"], ["bread"], ["bread"]]
    bought = snapshot.load_baskets(
        ledger,
        as_of=ledger_kit.at("2026-06-01 00:00"),
        start=ledger_kit.at("2026-05-01 00:00"),
        end=ledger_kit.at("2026-06-01 00:00"),
    )
    assert [list(keys) for keys in bought.product_keys] == [[1, 2], [1], [1]]


def test_while_nobody_is_known_to_allow_it_nobody_is_taken_to(shop, sold, ledger_kit, tmp_path) -> None:
    found = snapped(shop(sold, products=PRODUCTS), tmp_path, ledger_kit)
    assert found.spend_total.tolist() == [5, 5, 5]


def test_a_shop_without_anything_sensitive_asks_nobody(shop, sold, ledger_kit, tmp_path) -> None:
    ledger = shop(sold, consents=consents(silent=False))
    assert not ledger_lines.has_sensitive_products(ledger)
    assert "consents" not in str(ledger_lines.lines_as_of(ledger, ledger_kit.at("2026-06-01 00:00")).compile())
    assert snapped(ledger, tmp_path, ledger_kit).spend_total.tolist() == [10, 10, 10]
