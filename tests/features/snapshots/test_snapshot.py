"""A snapshot says what was known then: nothing from later, the same twice, and as the hand-written SQL has it."""

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

AT_EVERY_MOMENT = ("rhythm", "spend", "taste", "shelf", "needs")
FAMILIES = (*AT_EVERY_MOMENT, "staples")
ALL = (*FAMILIES, "engagement", "prices")


def rows(out: Path, family: str, moment) -> pd.DataFrame:
    frame = pd.read_parquet(out / family / "part.parquet")
    return frame[frame.event_timestamp == moment].reset_index(drop=True)


def same_at(moment, left: Path, right: Path, *, families=FAMILIES, **exactness) -> None:
    for family in families:
        found = rows(left, family, moment)
        assert found.customer_key.nunique() >= 500
        pd.testing.assert_frame_equal(found, rows(right, family, moment), **exactness)


def cut_by_hand(ledger: Path, moment, folder: Path) -> Path:
    """The mirror with every line sold at a moment or later torn out."""
    shutil.copytree(ledger, folder)
    for part in sorted(folder.glob("month=*/part.parquet")):
        table = pq.read_table(part)
        pq.write_table(table.filter(pc.less(table["sold_at"], pa.scalar(moment, table["sold_at"].type))), part)
    return folder


def close(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    assert set(found.columns) == set(wanted.columns)
    assert found[["customer_key", "event_timestamp"]].equals(
        wanted[["customer_key", "event_timestamp"]].astype(found.dtypes[:2].to_dict())
    )
    for name in wanted.columns[2:]:
        np.testing.assert_allclose(
            found[name].to_numpy("float64"), wanted[name].to_numpy("float64"), rtol=1e-9, atol=1e-9, err_msg=name
        )


def test_real_customers_have_the_features_that_sql_by_hand_gives(real, real_snapshot, ledger_kit) -> None:
    found = ledger_kit.read(real_snapshot)
    assert found.customer_key.nunique() >= 500
    found = found[found.event_timestamp != ledger_kit.noon].reset_index(drop=True)
    close(found, ledger_kit.by_hand(real, as_of=ledger_kit.now, cutoffs=ledger_kit.mornings, timezone=ledger_kit.zone))


def test_so_they_have_in_the_middle_of_a_day(real, real_snapshot, ledger_kit) -> None:
    found = ledger_kit.read(real_snapshot)
    found = found[found.event_timestamp == ledger_kit.noon].reset_index(drop=True)
    assert (found.recency_days == 0).any()
    noon = {"as_of": ledger_kit.noon, "cutoffs": [ledger_kit.noon], "timezone": ledger_kit.zone}
    close(found, ledger_kit.by_hand(real, **noon, before="<="))


def test_an_early_moment_of_a_late_run_is_what_an_early_run_gave(real, real_snapshot, ledger_kit, tmp_path) -> None:
    snapshot.write_snapshot(real, tmp_path, as_of=ledger_kit.noon, cutoffs=[ledger_kit.noon], timezone=ledger_kit.zone)
    same_at(ledger_kit.noon, real_snapshot, tmp_path, families=AT_EVERY_MOMENT, rtol=0, atol=1e-6)


def test_a_ledger_cut_by_hand_gives_what_a_replay_on_all_of_it_gives(real, ledger_kit, tmp_path) -> None:
    cut = cut_by_hand(real, ledger_kit.noon, tmp_path / "cut")
    early = ledger_kit.mornings[-1]
    case = {"as_of": ledger_kit.noon, "cutoffs": [ledger_kit.noon, early], "timezone": ledger_kit.zone}
    snapshot.write_snapshot(real, tmp_path / "all", **case)
    snapshot.write_snapshot(cut, tmp_path / "some", **case)
    same_at(early, tmp_path / "all", tmp_path / "some", families=AT_EVERY_MOMENT, rtol=0, atol=1e-6)
    same_at(ledger_kit.noon, tmp_path / "all", tmp_path / "some", rtol=0, atol=1e-6)


def test_a_snapshot_made_twice_is_the_same_to_the_last_digit(real, real_snapshot, ledger_kit, tmp_path) -> None:
    snapshot.write_snapshot(real, tmp_path, as_of=ledger_kit.now, cutoffs=[ledger_kit.now], timezone=ledger_kit.zone)
    same_at(ledger_kit.now, real_snapshot, tmp_path, check_exact=True)


def replay(ledger: Path, out: Path, as_of, ledger_kit) -> pd.DataFrame:
    snapshot.write_snapshot(ledger, out, as_of=as_of, cutoffs=[as_of], timezone="UTC")
    return ledger_kit.read(out)


def test_a_sale_that_arrives_late_changes_no_old_replay(shop, ledger_kit, tmp_path) -> None:
    first = ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"), 10.0)
    late = ledger_kit.line(1, ledger_kit.at("2026-05-20 10:00"), 99.0, known_at=ledger_kit.at("2026-06-15 00:00"))
    ledger = shop([first, late])
    old, new = ledger_kit.at("2026-06-01 00:00"), ledger_kit.at("2026-07-01 00:00")
    assert replay(ledger, tmp_path, old, ledger_kit).spend_total.item() == 10
    assert replay(ledger, tmp_path, new, ledger_kit).spend_total.item() == 109


def test_once_it_is_known_a_late_sale_counts_for_training_on_the_past(shop, ledger_kit, tmp_path) -> None:
    late = ledger_kit.line(1, ledger_kit.at("2026-05-20 10:00"), 99.0, known_at=ledger_kit.at("2026-06-15 00:00"))
    moments = [ledger_kit.at("2026-06-01 00:00"), ledger_kit.at("2026-07-01 00:00")]
    snapshot.write_snapshot(shop([late]), tmp_path, as_of=moments[1], cutoffs=moments, timezone="UTC")
    assert ledger_kit.read(tmp_path).recency_days.tolist() == [12, 42]


def test_an_old_replay_sees_the_line_as_it_stood_then(shop, ledger_kit, tmp_path) -> None:
    corrected_at = ledger_kit.at("2026-06-10 08:00")
    sold_at = ledger_kit.at("2026-05-01 10:00")
    wrong = ledger_kit.line(1, sold_at, 100.0, superseded_at=corrected_at)
    right = ledger_kit.line(1, sold_at, 10.0, known_at=corrected_at)
    ledger = shop([wrong, right])
    assert replay(ledger, tmp_path, ledger_kit.at("2026-06-01 00:00"), ledger_kit).spend_total.item() == 100
    assert replay(ledger, tmp_path, corrected_at, ledger_kit).spend_total.item() == 100
    assert replay(ledger, tmp_path, ledger_kit.at("2026-06-11 00:00"), ledger_kit).spend_total.item() == 10


def test_a_sale_at_the_very_moment_is_not_before_it(shop, ledger_kit, tmp_path) -> None:
    opening = ledger_kit.at("2026-06-01 00:00")
    ledger = shop([ledger_kit.line(1, opening), ledger_kit.line(2, ledger_kit.at("2026-05-31 23:59:59.999999"))])
    assert replay(ledger, tmp_path, opening, ledger_kit).customer_key.tolist() == [2]


def test_nothing_loaded_yet_gives_empty_files_of_the_right_shape(tmp_path, ledger_kit) -> None:
    as_of = ledger_kit.at("2026-06-01 00:00")
    counts = snapshot.write_snapshot(tmp_path / "ledger", tmp_path, as_of=as_of, cutoffs=[as_of], timezone="UTC")
    assert counts == dict.fromkeys(ALL, 0)
    assert "recency_days" in pq.read_schema(tmp_path / "rhythm" / "part.parquet").names
    assert np.isnan(snapshot.gap_quantile(tmp_path / "ledger", as_of=as_of, timezone="UTC"))
    assert snapshot.history_days(tmp_path / "ledger", as_of, "UTC") == 0
    assert snapshot.first_sale_day(tmp_path / "ledger", as_of, "UTC") is None


def test_a_corrected_word_of_the_catalogue_makes_another_digest(shop, ledger_kit) -> None:
    milk = {"product_key": 1, "department": "dairy", "category": "milk", "subcategory": "whole", "brand": "own"}
    lines_, as_of = [ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"))], ledger_kit.at("2026-06-01 00:00")

    def digest(**corrected: str) -> str:
        return snapshot.digest(shop(lines_, products=[milk | corrected]), as_of=as_of)

    before = digest()
    for word in ("department", "category", "subcategory", "brand"):
        assert digest(**{word: "corrected"}) != before, word
    assert digest() == before


def test_a_moment_after_the_runs_own_is_refused(tmp_path, ledger_kit) -> None:
    as_of = ledger_kit.at("2026-06-01 00:00")
    for wanted in ([], [ledger_kit.at("2026-06-02 00:00")]):
        with pytest.raises(snapshot.InvalidCutoffs):
            snapshot.write_snapshot(tmp_path, tmp_path, as_of=as_of, cutoffs=wanted, timezone="UTC")


def test_times_in_files_are_microseconds_of_utc(shop, ledger_kit, tmp_path) -> None:
    moment = ledger_kit.at("2026-06-01 12:34:56.789012")
    replay(shop([ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"))]), tmp_path, moment, ledger_kit)
    for family in ALL:
        schema = pq.read_schema(tmp_path / family / "part.parquet")
        assert str(schema.field("event_timestamp").type) == "timestamp[us, tz=UTC]"
    assert ledger_kit.read(tmp_path).event_timestamp.item() == pd.Timestamp(moment)


def test_gaps_and_history_of_the_shop(shop, ledger_kit) -> None:
    lines_ = [ledger_kit.line(1, ledger_kit.at(f"2026-05-{day:02} 10:00")) for day in (1, 3, 7, 15)]
    lines_ += [
        ledger_kit.line(2, ledger_kit.at("2026-05-02 10:00")),
        ledger_kit.line(2, ledger_kit.at("2026-05-12 10:00")),
    ]
    ledger, as_of = shop(lines_), ledger_kit.at("2026-06-01 00:00")
    assert snapshot.gap_quantile(ledger, as_of=as_of, timezone="UTC", share=0.5) == 6  # of 2, 4, 8, 10
    assert snapshot.first_sale_day(ledger, as_of, "UTC").isoformat() == "2026-05-01"
    assert snapshot.history_days(ledger, as_of, "UTC") == 31


def test_purchases_are_days_of_the_shop_with_what_was_paid(shop, ledger_kit) -> None:
    evening = ledger_kit.at("2026-05-01 22:00", "America/New_York")
    ledger = shop([ledger_kit.line(1, evening, 4.0), ledger_kit.line(1, evening, 5.5)])
    found = snapshot.load_purchases(ledger, as_of=ledger_kit.at("2026-06-01 00:00"), timezone="America/New_York")
    assert found.to_dict("records") == [{"customer_key": 1, "day": pd.Timestamp("2026-05-01"), "spend": 9.5}]


def test_product_days_are_days_of_the_shop_between_two_moments(shop, ledger_kit) -> None:
    evenings = [ledger_kit.at(f"2026-05-{day:02} 22:00", "America/New_York") for day in (1, 2, 3)]
    lines_ = [ledger_kit.line(1, at, product_key=product) for at in evenings for product in (7, 5)]
    lines_ += [
        ledger_kit.line(1, evenings[1], product_key=7),
        ledger_kit.line(1, evenings[1], product_key=9, kind="return"),
    ]
    found = snapshot.load_product_days(
        shop(lines_), as_of=ledger_kit.at("2026-06-01 00:00"), timezone="America/New_York", start=evenings[1],
        end=evenings[2],
    )  # fmt: skip
    assert found.to_dict("records") == [
        {"customer_key": 1, "product_key": product, "day": pd.Timestamp("2026-05-02")} for product in (5, 7)
    ]


def test_families_never_share_a_column_name() -> None:
    names = [name for family in point_in_time.FAMILIES.values() for name in family.columns(ledger_lines.VISIBLE_DAYS)]
    names += [*engagement.column_names(), *category_history.CATEGORY_LIST_TYPES, *product_history.PRODUCT_LIST_TYPES]
    assert len(names) == len(set(names)) == len(set(names) - set(ledger_lines.LEDGER_SCHEMA.names))
