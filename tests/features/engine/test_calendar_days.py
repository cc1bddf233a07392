"""Days are those of the shop's calendar, whatever the time zone of the machine or of the file."""

from datetime import timedelta

import pytest

from features.snapshots import snapshot

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def recency(ledger, out, as_of, zone, ledger_kit) -> float:
    snapshot.write_snapshot(ledger, out, as_of=as_of, cutoffs=[as_of], timezone=zone)
    return ledger_kit.read_families(out).recency_days.item()


def test_a_purchase_just_before_midnight_was_yesterday(make_ledger, ledger_kit, tmp_path) -> None:
    sold_at = ledger_kit.at("2026-03-02 23:50", BERLIN)
    as_of = ledger_kit.at("2026-03-03 00:10", BERLIN)
    assert recency(make_ledger([ledger_kit.line(1, sold_at)]), tmp_path, as_of, BERLIN, ledger_kit) == 1


def test_recency_counts_dates_and_not_elapsed_hours(make_ledger, ledger_kit, tmp_path) -> None:
    sold_at = ledger_kit.at("2026-03-01 00:05", BERLIN)
    late = ledger_kit.at("2026-03-02 23:55", BERLIN)
    assert recency(make_ledger([ledger_kit.line(1, sold_at)]), tmp_path, late, BERLIN, ledger_kit) == 1


def test_a_purchase_after_midnight_utc_is_of_the_day_before_in_new_york(make_ledger, ledger_kit, tmp_path) -> None:
    sold_at = ledger_kit.at("2026-01-02 02:30")  # 21:30 on the first of January in the shop
    as_of = ledger_kit.at("2026-01-03 00:00", NEW_YORK)
    assert recency(make_ledger([ledger_kit.line(1, sold_at)]), tmp_path, as_of, NEW_YORK, ledger_kit) == 2


@pytest.mark.parametrize("change_day", ["2026-03-29", "2026-10-25"])
def test_a_day_of_23_or_25_hours_is_one_day(make_ledger, ledger_kit, tmp_path, change_day) -> None:
    midnight = ledger_kit.at(f"{change_day} 00:00", BERLIN)
    before, after = midnight - timedelta(minutes=1), midnight + timedelta(hours=36)
    assert recency(make_ledger([ledger_kit.line(1, before)]), tmp_path, after, BERLIN, ledger_kit) == 2


def test_two_visits_on_one_local_day_are_one_purchase_day(make_ledger, ledger_kit, tmp_path) -> None:
    lines = [ledger_kit.line(1, ledger_kit.at(f"2026-05-0{day} {time}", NEW_YORK)) for day, time in
             [(1, "09:00"), (1, "22:00"), (3, "22:00")]]  # fmt: skip
    as_of = ledger_kit.at("2026-05-05 00:00", NEW_YORK)
    snapshot.write_snapshot(make_ledger(lines), tmp_path, as_of=as_of, cutoffs=[as_of], timezone=NEW_YORK)
    row = ledger_kit.read_families(tmp_path).iloc[0]
    assert (row.purchase_days, row.baskets_total, row.gap_mean_days, row.recency_days) == (2, 3, 2, 2)


def test_a_cutoff_at_noon_includes_the_morning_and_not_the_afternoon(make_ledger, ledger_kit, tmp_path) -> None:
    lines = [
        ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"), 4.0),
        ledger_kit.line(1, ledger_kit.at("2026-05-04 09:00"), 6.0),
        ledger_kit.line(1, ledger_kit.at("2026-05-04 15:00"), 50.0),
    ]
    noon, later = ledger_kit.at("2026-05-04 12:00"), ledger_kit.at("2026-05-20 18:00")
    snapshot.write_snapshot(make_ledger(lines), tmp_path, as_of=later, cutoffs=[noon, later], timezone="UTC")
    early, late = ledger_kit.read_families(tmp_path).itertuples()
    assert (early.recency_days, early.purchase_days, early.spend_total, early.gap_last_days) == (0, 2, 10, 3)
    assert (late.recency_days, late.purchase_days, late.spend_total, late.baskets_total) == (16, 2, 60, 3)


def test_weekdays_are_in_the_shops_zone(make_ledger, ledger_kit, tmp_path) -> None:
    sold_on_sunday = ledger_kit.at("2026-05-03 23:30", NEW_YORK)  # already Monday in UTC
    as_of = ledger_kit.at("2026-05-06 00:00", NEW_YORK)  # a Wednesday
    snapshot.write_snapshot(
        make_ledger([ledger_kit.line(1, sold_on_sunday)]), tmp_path, as_of=as_of, cutoffs=[as_of], timezone=NEW_YORK
    )
    row = ledger_kit.read_families(tmp_path).iloc[0]
    assert (row.weekday_6_share, row.weekday_0_share, row.as_of_weekday) == (1, 0, 2)
