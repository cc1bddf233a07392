"""Sensitive products count in the features of a customer only with their consent."""

import pandas as pd
import pytest

from features.engine import ledger_lines
from features.snapshots import snapshot

ALLOWS, REFUSES, NO_RECORD = 1, 2, 3
PRODUCTS = [
    {"product_key": 1, "category": "bread", "sensitive": False},
    {"product_key": 2, "category": "health", "sensitive": True},
]


@pytest.fixture
def lines(ledger_kit):
    return [
        ledger_kit.line(customer, ledger_kit.at(f"2026-05-0{product} 10:00"), 5.0, product_key=product)
        for customer in (ALLOWS, REFUSES, NO_RECORD) for product in (1, 2)
    ]  # fmt: skip


def consents(**allows_by_name: bool) -> list[dict]:
    keys = {"allows": ALLOWS, "refuses": REFUSES}
    return [
        {"customer_key": keys[name], "profiling": True, "profiling_sensitive": allows}
        for name, allows in allows_by_name.items()
    ]


def snapshot_rows(ledger, out, ledger_kit) -> pd.DataFrame:
    as_of = ledger_kit.at("2026-06-01 00:00")
    snapshot.write_snapshot(ledger, out, as_of=as_of, cutoffs=[as_of], timezone="UTC")
    parts = [pd.read_parquet(out / family / "part.parquet") for family in ("spend", "shelf", "needs")]
    first, *others = [part.set_index("customer_key").drop(columns=["event_timestamp", "created"]) for part in parts]
    return first.join(others)


def test_sensitive_products_count_only_for_a_customer_who_consents(make_ledger, lines, ledger_kit, tmp_path) -> None:
    ledger = make_ledger(lines, products=PRODUCTS, consents=consents(allows=True, refuses=False))
    rows = snapshot_rows(ledger, tmp_path, ledger_kit)
    assert rows.spend_total.to_dict() == {ALLOWS: 10, REFUSES: 5, NO_RECORD: 5}
    assert [sorted(keys) for keys in rows.product_keys] == [[1, 2], [1], [1]]
    assert [sorted(words) for words in rows.categories] == [["bread", "health"], ["bread"], ["bread"]]
    baskets = snapshot.load_baskets(
        ledger,
        as_of=ledger_kit.at("2026-06-01 00:00"),
        start=ledger_kit.at("2026-05-01 00:00"),
        end=ledger_kit.at("2026-06-01 00:00"),
    )
    assert [list(keys) for keys in baskets.product_keys] == [[1, 2], [1], [1]]


def test_without_a_table_of_consents_no_sensitive_product_counts(make_ledger, lines, ledger_kit, tmp_path) -> None:
    rows = snapshot_rows(make_ledger(lines, products=PRODUCTS), tmp_path, ledger_kit)
    assert rows.spend_total.tolist() == [5, 5, 5]


def test_a_shop_without_sensitive_products_reads_no_consents(make_ledger, lines, ledger_kit, tmp_path) -> None:
    ledger = make_ledger(lines, consents=consents(refuses=False))
    assert not ledger_lines.has_sensitive_products(ledger)
    assert "consents" not in str(ledger_lines.lines_as_of(ledger, ledger_kit.at("2026-06-01 00:00")).compile())
    assert snapshot_rows(ledger, tmp_path, ledger_kit).spend_total.tolist() == [10, 10, 10]
