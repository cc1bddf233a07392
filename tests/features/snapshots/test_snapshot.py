"""Snapshots: nothing from after the cutoff, the same twice, and equal to the reference SQL."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.engine import ledger_lines
from features.families import category_history, engagement, product_history
from features.snapshots import point_in_time, snapshot

CUTOFF_FAMILIES = ("rhythm", "spend", "taste", "shelf", "needs")
FAMILIES = (*CUTOFF_FAMILIES, "staples")
ALL = (*FAMILIES, "engagement", "prices")


def family_rows(out: Path, family: str, cutoff) -> pd.DataFrame:
    frame = pd.read_parquet(out / family / "part.parquet")
    return frame[frame.event_timestamp == cutoff].reset_index(drop=True)


def assert_same_at(cutoff, left: Path, right: Path, *, families=FAMILIES, **exactness) -> None:
    for family in families:
        features = family_rows(left, family, cutoff)
        assert features.customer_key.nunique() >= 500
        pd.testing.assert_frame_equal(features, family_rows(right, family, cutoff), **exactness)


def cut_ledger(ledger: Path, cutoff, folder: Path) -> Path:
    """A copy of the mirror without the lines sold at the cutoff or later."""
    shutil.copytree(ledger, folder)
    for part in sorted(folder.glob("month=*/part.parquet")):
        table = pq.read_table(part)
        pq.write_table(table.filter(pc.less(table["sold_at"], pa.scalar(cutoff, table["sold_at"].type))), part)
    return folder


def assert_close(features: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert set(features.columns) == set(expected.columns)
    assert features[["customer_key", "event_timestamp"]].equals(
        expected[["customer_key", "event_timestamp"]].astype(features.dtypes[:2].to_dict())
    )
    for name in expected.columns[2:]:
        np.testing.assert_allclose(
            features[name].to_numpy("float64"), expected[name].to_numpy("float64"), rtol=1e-9, atol=1e-9, err_msg=name
        )


def test_real_customers_have_the_features_of_the_reference_sql(real_ledger, real_snapshot, ledger_kit) -> None:
    features = ledger_kit.read_families(real_snapshot)
    assert features.customer_key.nunique() >= 500
    features = features[features.event_timestamp != ledger_kit.noon].reset_index(drop=True)
    assert_close(
        features,
        ledger_kit.reference_features(
            real_ledger, as_of=ledger_kit.now, cutoffs=ledger_kit.midnight_cutoffs, timezone=ledger_kit.zone
        ),
    )


def test_a_cutoff_at_noon_has_the_features_of_the_reference_sql(real_ledger, real_snapshot, ledger_kit) -> None:
    features = ledger_kit.read_families(real_snapshot)
    features = features[features.event_timestamp == ledger_kit.noon].reset_index(drop=True)
    assert (features.recency_days == 0).any()
    noon = {"as_of": ledger_kit.noon, "cutoffs": [ledger_kit.noon], "timezone": ledger_kit.zone}
    assert_close(features, ledger_kit.reference_features(real_ledger, **noon, before="<="))


def test_an_early_cutoff_of_a_late_run_equals_an_early_run(real_ledger, real_snapshot, ledger_kit, tmp_path) -> None:
    snapshot.write_snapshot(
        real_ledger, tmp_path, as_of=ledger_kit.noon, cutoffs=[ledger_kit.noon], timezone=ledger_kit.zone
    )
    assert_same_at(ledger_kit.noon, real_snapshot, tmp_path, families=CUTOFF_FAMILIES, rtol=0, atol=1e-6)


def test_a_ledger_without_later_lines_gives_the_same_features(real_ledger, ledger_kit, tmp_path) -> None:
    cut = cut_ledger(real_ledger, ledger_kit.noon, tmp_path / "cut")
    early = ledger_kit.midnight_cutoffs[-1]
    case = {"as_of": ledger_kit.noon, "cutoffs": [ledger_kit.noon, early], "timezone": ledger_kit.zone}
    snapshot.write_snapshot(real_ledger, tmp_path / "all", **case)
    snapshot.write_snapshot(cut, tmp_path / "some", **case)
    assert_same_at(early, tmp_path / "all", tmp_path / "some", families=CUTOFF_FAMILIES, rtol=0, atol=1e-6)
    assert_same_at(ledger_kit.noon, tmp_path / "all", tmp_path / "some", rtol=0, atol=1e-6)


def test_a_snapshot_made_twice_is_the_same_to_the_last_digit(real_ledger, real_snapshot, ledger_kit, tmp_path) -> None:
    snapshot.write_snapshot(
        real_ledger, tmp_path, as_of=ledger_kit.now, cutoffs=[ledger_kit.now], timezone=ledger_kit.zone
    )
    assert_same_at(ledger_kit.now, real_snapshot, tmp_path, check_exact=True)


def run_as_of(ledger: Path, out: Path, as_of, ledger_kit) -> pd.DataFrame:
    snapshot.write_snapshot(ledger, out, as_of=as_of, cutoffs=[as_of], timezone="UTC")
    return ledger_kit.read_families(out)


def test_a_sale_recorded_late_changes_no_historical_run(make_ledger, ledger_kit, tmp_path) -> None:
    early_sale = ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"), 10.0)
    late_sale = ledger_kit.line(1, ledger_kit.at("2026-05-20 10:00"), 99.0, known_at=ledger_kit.at("2026-06-15 00:00"))
    ledger = make_ledger([early_sale, late_sale])
    old, new = ledger_kit.at("2026-06-01 00:00"), ledger_kit.at("2026-07-01 00:00")
    assert run_as_of(ledger, tmp_path, old, ledger_kit).spend_total.item() == 10
    assert run_as_of(ledger, tmp_path, new, ledger_kit).spend_total.item() == 109


def test_a_sale_recorded_late_counts_at_past_cutoffs_of_a_later_run(make_ledger, ledger_kit, tmp_path) -> None:
    late_sale = ledger_kit.line(1, ledger_kit.at("2026-05-20 10:00"), 99.0, known_at=ledger_kit.at("2026-06-15 00:00"))
    cutoffs = [ledger_kit.at("2026-06-01 00:00"), ledger_kit.at("2026-07-01 00:00")]
    snapshot.write_snapshot(make_ledger([late_sale]), tmp_path, as_of=cutoffs[1], cutoffs=cutoffs, timezone="UTC")
    assert ledger_kit.read_families(tmp_path).recency_days.tolist() == [12, 42]


def test_a_historical_run_reads_the_line_as_it_stood_then(make_ledger, ledger_kit, tmp_path) -> None:
    corrected_at = ledger_kit.at("2026-06-10 08:00")
    sold_at = ledger_kit.at("2026-05-01 10:00")
    original = ledger_kit.line(1, sold_at, 100.0, superseded_at=corrected_at)
    corrected = ledger_kit.line(1, sold_at, 10.0, known_at=corrected_at)
    ledger = make_ledger([original, corrected])
    assert run_as_of(ledger, tmp_path, ledger_kit.at("2026-06-01 00:00"), ledger_kit).spend_total.item() == 100
    assert run_as_of(ledger, tmp_path, corrected_at, ledger_kit).spend_total.item() == 100
    assert run_as_of(ledger, tmp_path, ledger_kit.at("2026-06-11 00:00"), ledger_kit).spend_total.item() == 10


def test_a_sale_exactly_at_the_cutoff_does_not_count(make_ledger, ledger_kit, tmp_path) -> None:
    midnight = ledger_kit.at("2026-06-01 00:00")
    ledger = make_ledger(
        [ledger_kit.line(1, midnight), ledger_kit.line(2, ledger_kit.at("2026-05-31 23:59:59.999999"))]
    )
    assert run_as_of(ledger, tmp_path, midnight, ledger_kit).customer_key.tolist() == [2]


def test_an_empty_ledger_gives_empty_files_with_the_columns(tmp_path, ledger_kit) -> None:
    as_of = ledger_kit.at("2026-06-01 00:00")
    counts = snapshot.write_snapshot(tmp_path / "ledger", tmp_path, as_of=as_of, cutoffs=[as_of], timezone="UTC")
    assert counts == dict.fromkeys(ALL, 0)
    assert "recency_days" in pq.read_schema(tmp_path / "rhythm" / "part.parquet").names
    assert np.isnan(snapshot.gap_quantile(tmp_path / "ledger", as_of=as_of, timezone="UTC"))
    assert snapshot.history_days(tmp_path / "ledger", as_of, "UTC") == 0
    assert snapshot.first_sale_day(tmp_path / "ledger", as_of, "UTC") is None


def test_a_corrected_field_of_the_catalogue_changes_the_digest(make_ledger, ledger_kit) -> None:
    milk = {"product_key": 1, "department": "dairy", "category": "milk", "subcategory": "whole", "brand": "own"}
    lines, as_of = [ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"))], ledger_kit.at("2026-06-01 00:00")

    def digest(**corrected: str) -> str:
        return snapshot.digest(make_ledger(lines, products=[milk | corrected]), as_of=as_of)

    before = digest()
    for field in ("department", "category", "subcategory", "brand"):
        assert digest(**{field: "corrected"}) != before, field
    assert digest() == before


def test_a_cutoff_after_as_of_is_refused(tmp_path, ledger_kit) -> None:
    as_of = ledger_kit.at("2026-06-01 00:00")
    for cutoffs in ([], [ledger_kit.at("2026-06-02 00:00")]):
        with pytest.raises(snapshot.InvalidCutoffs):
            snapshot.write_snapshot(tmp_path, tmp_path, as_of=as_of, cutoffs=cutoffs, timezone="UTC")


def test_times_in_files_are_microseconds_of_utc(make_ledger, ledger_kit, tmp_path) -> None:
    cutoff = ledger_kit.at("2026-06-01 12:34:56.789012")
    run_as_of(make_ledger([ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"))]), tmp_path, cutoff, ledger_kit)
    for family in ALL:
        schema = pq.read_schema(tmp_path / family / "part.parquet")
        assert str(schema.field("event_timestamp").type) == "timestamp[us, tz=UTC]"
    assert ledger_kit.read_families(tmp_path).event_timestamp.item() == pd.Timestamp(cutoff)


def test_gaps_and_history_of_the_shop(make_ledger, ledger_kit) -> None:
    lines = [ledger_kit.line(1, ledger_kit.at(f"2026-05-{day:02} 10:00")) for day in (1, 3, 7, 15)]
    lines += [
        ledger_kit.line(2, ledger_kit.at("2026-05-02 10:00")),
        ledger_kit.line(2, ledger_kit.at("2026-05-12 10:00")),
    ]
    ledger, as_of = make_ledger(lines), ledger_kit.at("2026-06-01 00:00")
    assert snapshot.gap_quantile(ledger, as_of=as_of, timezone="UTC", share=0.5) == 6  # of 2, 4, 8, 10
    assert snapshot.first_sale_day(ledger, as_of, "UTC").isoformat() == "2026-05-01"
    assert snapshot.history_days(ledger, as_of, "UTC") == 31


def test_purchases_are_days_of_the_shop_with_their_spend(make_ledger, ledger_kit) -> None:
    sold_at = ledger_kit.at("2026-05-01 22:00", "America/New_York")
    ledger = make_ledger([ledger_kit.line(1, sold_at, 4.0), ledger_kit.line(1, sold_at, 5.5)])
    purchases = snapshot.load_purchases(ledger, as_of=ledger_kit.at("2026-06-01 00:00"), timezone="America/New_York")
    assert purchases.to_dict("records") == [{"customer_key": 1, "day": pd.Timestamp("2026-05-01"), "spend": 9.5}]


def test_product_days_are_days_of_the_shop_between_two_times(make_ledger, ledger_kit) -> None:
    sale_times = [ledger_kit.at(f"2026-05-{day:02} 22:00", "America/New_York") for day in (1, 2, 3)]
    lines = [ledger_kit.line(1, at, product_key=product) for at in sale_times for product in (7, 5)]
    lines += [
        ledger_kit.line(1, sale_times[1], product_key=7),
        ledger_kit.line(1, sale_times[1], product_key=9, kind="return"),
    ]
    product_days = snapshot.load_product_days(
        make_ledger(lines), as_of=ledger_kit.at("2026-06-01 00:00"), timezone="America/New_York", start=sale_times[1],
        end=sale_times[2],
    )  # fmt: skip
    assert product_days.to_dict("records") == [
        {"customer_key": 1, "product_key": product, "day": pd.Timestamp("2026-05-02")} for product in (5, 7)
    ]


def test_families_never_share_a_column_name() -> None:
    names = [name for family in point_in_time.FAMILIES.values() for name in family.columns(ledger_lines.VISIBLE_DAYS)]
    names += [*engagement.column_names(), *category_history.CATEGORY_LIST_TYPES, *product_history.PRODUCT_LIST_TYPES]
    assert len(names) == len(set(names)) == len(set(names) - set(ledger_lines.LEDGER_SCHEMA.names))
