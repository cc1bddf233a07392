"""Shops with one enormous customer, with one product in every basket, and with one enormous day."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from customers.parquet.columns import LINE_SCHEMA, PRODUCT_SCHEMA
from features.products import co_purchases
from features.snapshots import portions, snapshot

ZONE = "Europe/Berlin"
OPENED = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 7, 1, 7, tzinfo=UTC)
GIANT = 500
CUTOFFS = [datetime(2026, 4, 30, 22, tzinfo=UTC), datetime(2026, 5, 31, 22, tzinfo=UTC), NOW]


def sales(customers: np.ndarray, days: np.ndarray, products: np.ndarray, orders: np.ndarray) -> pd.DataFrame:
    """Lines of 1.00 at noon of their days; all arrays (n,)."""
    sold_at = pd.to_datetime(OPENED) + pd.to_timedelta(days * 24 + 12, unit="h")
    return pd.DataFrame(
        {
            "customer_key": customers, "order_key": orders, "product_key": products, "sold_at": sold_at,
            "known_at": sold_at, "superseded_at": pd.NaT, "quantity": 1.0, "amount": 1.0, "discount": 0.0,
            "kind": "sale", "store_id": "high street", "channel": "store",
        }
    )  # fmt: skip


def ordinary_sales(customers: int = 40, per_customer: int = 60, seed: int = 1) -> pd.DataFrame:
    """Sales of customers 0 to `customers` - 1 in half a year, two lines a visit."""
    rng = np.random.default_rng(seed)
    keys, days = np.repeat(np.arange(customers), per_customer), rng.integers(0, 180, customers * per_customer)
    return sales(keys, days, rng.integers(0, 300, len(keys)), keys * 1_000 + days)


def write_mirror(folder: Path, lines: pd.DataFrame, n_products: int = 5_000) -> Path:
    """Write the lines by month, and products in fifty categories; returns the folder."""
    for month, rows in lines.groupby(lines["sold_at"].dt.strftime("%Y-%m")):
        path = folder / f"month={month}" / "part.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False).cast(LINE_SCHEMA), path)
    keys = np.arange(n_products)
    products = {"product_key": keys, "category": [f"c{key % 50}" for key in keys]}
    table = pa.table(
        {field.name: products.get(field.name, pa.nulls(n_products, field.type)) for field in PRODUCT_SCHEMA}
    )
    pq.write_table(table.cast(PRODUCT_SCHEMA), folder / "products.parquet")
    return folder


def compute(ledger: Path, out: Path) -> Path:
    snapshot.write_snapshot(ledger, out, as_of=NOW, cutoffs=CUTOFFS, timezone=ZONE, list_cutoffs=[NOW])
    return out


def read(out: Path, family: str) -> pd.DataFrame:
    return pd.read_parquet(out / family / "part.parquet")


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of the ordinary customers alone."""
    folder = tmp_path_factory.mktemp("ordinary")
    return compute(write_mirror(folder / "ledger", ordinary_sales()), folder / "features")


@pytest.fixture(scope="module")
def beside_a_giant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of the same customers beside one with 400,000 lines, in portions that one customer alone exceeds."""
    folder = tmp_path_factory.mktemp("giant")
    rng = np.random.default_rng(2)
    days = np.sort(rng.integers(0, 180, 400_000))
    giant = sales(np.full(len(days), GIANT), days, rng.integers(0, 5_000, len(days)), 10**9 + np.arange(len(days)) // 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portions, "MAX_ROWS", 100_000)
        patch.setenv("REGULARS_ENGINE_MEMORY", "400MB")
        return compute(write_mirror(folder / "ledger", pd.concat([ordinary_sales(), giant])), folder / "features")


@pytest.mark.parametrize("family", ["rhythm", "spend", "taste", "shelf", "needs", "staples"])
def test_a_customer_with_400_000_lines_changes_nobody_else(ordinary, beside_a_giant, family):
    others = read(beside_a_giant, family)
    others = others[others["customer_key"] != GIANT].reset_index(drop=True)
    pd.testing.assert_frame_equal(others, read(ordinary, family), check_exact=True)


def test_a_customer_with_400_000_lines_has_features_and_short_lists(beside_a_giant):
    spend = read(beside_a_giant, "spend").query("customer_key == @GIANT")
    assert len(spend) == len(CUTOFFS)
    assert spend["spend_total"].iloc[-1] == 400_000
    shelf = read(beside_a_giant, "shelf").query("customer_key == @GIANT").iloc[0]
    assert 0 < len(shelf["product_keys"]) <= 5_000
    assert len(read(beside_a_giant, "needs").query("customer_key == @GIANT").iloc[0]["categories"]) == 50


def test_a_product_in_every_basket_is_no_better_a_companion_than_chance(tmp_path):
    rng = np.random.default_rng(3)
    n_visits, bag = 4_000, 299
    customers, days = rng.integers(0, 200, n_visits), rng.integers(0, 180, n_visits)
    visits = pd.DataFrame({"customer": customers, "day": days}).drop_duplicates()
    keys, at_day = visits["customer"].to_numpy(), visits["day"].to_numpy()
    # Everybody takes a bag; products 2 n and 2 n + 1 are bought together.
    pair = rng.integers(0, 20, len(visits))
    lines = pd.concat(
        [sales(keys, at_day, part, keys * 1_000 + at_day) for part in (bag + 0 * keys, 2 * pair, 2 * pair + 1)]
    )
    pairs = co_purchases.count_co_purchases(write_mirror(tmp_path, lines, 300), as_of=NOW, timezone=ZONE)
    by_pair = pairs.set_index(["product_key", "other_key"])
    assert len(by_pair.loc[[bag]]) == 40
    assert by_pair.loc[bag]["lift"].between(0.99, 1.01).all()
    strongest = pairs.sort_values("strength", ascending=False).drop_duplicates("product_key").set_index("product_key")
    assert all(strongest.loc[key, "other_key"] == key ^ 1 for key in range(40))


def test_a_day_with_a_tenth_of_all_sales_is_one_day_of_each_customer(tmp_path, monkeypatch):
    ordinary_lines = ordinary_sales(customers=200)
    rng = np.random.default_rng(4)
    n_lines = len(ordinary_lines) // 9
    keys = rng.integers(0, 200, n_lines)
    rush = sales(keys, np.full(n_lines, 100), rng.integers(0, 300, n_lines), keys * 1_000 + 100)
    lines = pd.concat([ordinary_lines, rush])
    monkeypatch.setattr(portions, "MAX_ROWS", 5_000)
    out = compute(write_mirror(tmp_path / "ledger", lines), tmp_path / "features")
    latest = read(out, "rhythm").query("event_timestamp == @NOW").set_index("customer_key")
    expected = lines.groupby("customer_key")["sold_at"].nunique()
    assert (latest["purchase_days"] == expected.loc[latest.index]).all()
    totals = read(out, "spend").query("event_timestamp == @NOW").set_index("customer_key")["spend_total"]
    assert (totals == lines.groupby("customer_key")["amount"].sum().loc[totals.index]).all()
