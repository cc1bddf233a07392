"""Real-time features of a customer equal those of a snapshot as of the same time, to the last digit."""

import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.snapshots import real_time, snapshot
from features.store import feature_store

VIEWS = ("rhythm", "spend", "taste", "engagement", "shelf", "needs")


def customer_records(ledger: Path, *customers: int) -> tuple[pa.Table, pa.Table]:
    """All versions of all lines of these customers, and all their interactions."""
    keys = pa.array(customers, pa.int64())
    parts = [pq.read_table(part, partitioning=None) for part in sorted(ledger.glob("month=*/part.parquet"))]
    tables = [pa.concat_tables(parts), pq.read_table(ledger / "interactions.parquet")]
    sales, interactions = (table.filter(pc.is_in(table["customer_key"], keys)) for table in tables)
    return sales, interactions


def assert_equal_rows(features: dict[str, pd.DataFrame], out: Path, cutoff, *customers: int) -> None:
    """Assert that every view's rows of these customers equal those of a snapshot, to the last digit."""
    assert set(features) == set(VIEWS)
    for view in VIEWS:
        expected = pd.read_parquet(out / view / "part.parquet")
        expected = expected[(expected.event_timestamp == cutoff) & expected.customer_key.isin(customers)]
        pd.testing.assert_frame_equal(features[view], expected.reset_index(drop=True), check_exact=True)


@pytest.mark.parametrize("cutoff", ["2026-05-01 00:00", "2026-04-11 14:30"])
def test_every_customer_has_the_features_of_the_nightly_run(make_ledger, ledger_kit, tmp_path, cutoff) -> None:
    ledger, as_of = make_ledger(**ledger_kit.random_records()), ledger_kit.at(cutoff)
    snapshot.write_snapshot(ledger, tmp_path, as_of=as_of, cutoffs=[as_of], timezone="Europe/Berlin")
    every_customer = range(40)
    features = real_time.compute_features(
        *customer_records(ledger, *every_customer), ledger, as_of=as_of, timezone="Europe/Berlin"
    )
    assert_equal_rows(features, tmp_path, as_of, *every_customer)
    for one in (3, 4):
        alone = real_time.compute_features(
            *customer_records(ledger, one), ledger, as_of=as_of, timezone="Europe/Berlin"
        )
        assert_equal_rows(alone, tmp_path, as_of, one)


def test_real_customers_have_the_features_of_the_nightly_run(real_ledger, real_snapshot, ledger_kit) -> None:
    for customer in (4, 2496):
        sales, interactions = customer_records(real_ledger, customer)
        current = real_time.compute_features(
            sales, interactions, real_ledger, as_of=ledger_kit.now, timezone=ledger_kit.zone
        )
        assert_equal_rows(current, real_snapshot, ledger_kit.now, customer)


def test_one_customer_of_a_full_size_shop_takes_less_than_half_a_second(real_ledger, ledger_kit) -> None:
    sales, interactions = customer_records(real_ledger, 4)
    seconds = []
    for _ in range(4):
        started = time.process_time()
        real_time.compute_features(sales, interactions, real_ledger, as_of=ledger_kit.now, timezone=ledger_kit.zone)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.4  # 0.15 on an idle core; the machine of a test is never idle


def test_a_corrected_line_counts_as_it_stood_at_as_of(make_ledger, ledger_kit) -> None:
    at = ledger_kit.at
    original = ledger_kit.line(1, at("2026-05-01 10:00"), 100.0, superseded_at=at("2026-06-10 08:00"))
    corrected = ledger_kit.line(1, at("2026-05-01 10:00"), 10.0, known_at=at("2026-06-10 08:00"))
    ledger = make_ledger([original, corrected], interactions=[])
    for cutoff, spend in (("2026-06-01 00:00", 100), ("2026-06-11 00:00", 10)):
        features = real_time.compute_features(*customer_records(ledger, 1), ledger, as_of=at(cutoff), timezone="UTC")
        assert features["spend"].spend_total.item() == spend


def test_a_customer_with_only_a_return_has_no_row(make_ledger, ledger_kit) -> None:
    ledger = make_ledger(
        [ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"), -5.0, kind="return", quantity=-1.0)], interactions=[]
    )
    features = real_time.compute_features(
        *customer_records(ledger, 1), ledger, as_of=ledger_kit.at("2026-06-01 00:00"), timezone="UTC"
    )
    assert all(features[view].empty for view in VIEWS)


def test_a_sale_at_the_till_is_served_at_once_and_no_other_customer_changes(make_ledger, ledger_kit, tmp_path) -> None:
    ledger, run_as_of = make_ledger(**ledger_kit.random_records()), ledger_kit.at("2026-05-01 00:00")
    snapshot.write_snapshot(ledger, tmp_path, as_of=run_as_of, cutoffs=[run_as_of], timezone="UTC")
    store = feature_store.open_store(tmp_path)
    store.apply()
    store.materialise(run_as_of)
    sold_at = run_as_of + timedelta(hours=9)
    sales, interactions = customer_records(ledger, 3)
    sale = pa.Table.from_pylist([ledger_kit.line(3, sold_at, 500.0, product_key=1)], schema=sales.schema)
    as_of = sold_at + timedelta(microseconds=1)
    for view, frame in real_time.compute_features(
        pa.concat_tables([sales, sale]), interactions, ledger, as_of=as_of, timezone="UTC"
    ).items():
        store.push(view, frame)
    for service in ("churn_v1", "recommender_v1", "restock_v1"):
        current = store.online_features(service, [3, 6])
        assert current.event_timestamp.tolist() == [as_of, run_as_of]
    churn_features = store.online_features("churn_v1", [3, 6])
    assert churn_features.recency_days[0] == 0
    assert churn_features.spend_day_last[0] == 500
    offer_features = store.online_features("offers_v1", [3]).iloc[0]
    assert offer_features.last_days[list(offer_features.product_keys).index(1)] == 0
    restock_features = store.online_features("restock_v1", [3]).iloc[0]
    assert restock_features.need_last_days[list(restock_features.categories).index("c1")] == 0


def test_a_plan_is_prepared_once_and_before_the_first_customer() -> None:
    real_time._prepared_engine.cache_clear()
    real_time.prepare("UTC")
    prepared = real_time._prepared_engine("UTC")
    real_time.prepare("UTC")
    assert real_time._prepared_engine("UTC") is prepared
    assert real_time._prepared_engine.cache_info().misses == 1
