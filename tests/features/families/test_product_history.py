"""Product history: what a customer buys, how often and how regularly, and the order of the product lists."""

import numpy as np
import pandas as pd
import pytest

from features.families import product_history
from features.snapshots import point_in_time, snapshot


@pytest.fixture
def history_snapshot(make_ledger, ledger_kit, tmp_path):
    days = {1: ["06-01", "06-08", "06-15", "06-22"], 2: ["05-01"], 3: ["06-20", "06-29"]}
    lines = [
        ledger_kit.line(5, ledger_kit.at(f"2026-{day} 10:00"), 2.5, product_key=product)
        for product, bought_on in days.items() for day in bought_on
    ]  # fmt: skip
    lines.append(ledger_kit.line(5, ledger_kit.at("2026-06-22 18:00"), 1.0, product_key=1))
    lines.append(ledger_kit.line(5, ledger_kit.at("2026-06-30 10:00"), 0.0, product_key=9, quantity=0.0))
    as_of = ledger_kit.at("2026-07-01 00:00")
    counts = snapshot.write_snapshot(make_ledger(lines), tmp_path, as_of=as_of, cutoffs=[as_of], timezone="UTC")
    return tmp_path, counts


def test_purchases_of_a_product_are_counted_by_days(history_snapshot) -> None:
    out, counts = history_snapshot
    milk, cheese, bread = pd.read_parquet(out / "staples" / "part.parquet").itertuples()
    assert counts["staples"] == 3
    assert (milk.product_key, milk.times, milk.recency_days, milk.first_days) == (1, 4, 9, 30)
    assert (milk.gap_mean_days, milk.gap_cv, milk.spend) == (7, 0, 4 * 2.5 + 1)
    assert (cheese.times, cheese.recency_days) == (1, 61)
    assert np.isnan(cheese.gap_mean_days)
    assert (bread.gap_mean_days, np.isnan(bread.gap_cv)) == (9, True)
    assert milk.weight_28d == pytest.approx(sum(0.5 ** (age / 28) for age in (30, 23, 16, 9)))


def test_the_product_list_begins_with_the_largest_weight(history_snapshot) -> None:
    out, _ = history_snapshot
    (history,) = pd.read_parquet(out / "shelf" / "part.parquet").itertuples()
    assert list(history.product_keys) == [1, 3, 2]
    assert list(history.times) == [4, 2, 1]
    assert list(history.last_days) == [9, 2, 61]
    assert history.weights_84d[2] == pytest.approx(0.5 ** (61 / 84))


def test_product_lists_are_written_only_at_list_cutoffs(make_ledger, ledger_kit, tmp_path) -> None:
    cutoffs = ledger_kit.midnights(ledger_kit.at("2026-07-01 00:00"), "UTC", every=7, count=3)
    ledger = make_ledger([ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"))])
    counts = snapshot.write_snapshot(
        ledger, tmp_path, as_of=cutoffs[0], cutoffs=cutoffs, timezone="UTC", list_cutoffs=cutoffs[:1]
    )
    assert (counts["rhythm"], counts["shelf"], counts["staples"]) == (3, 1, 1)


def test_at_noon_a_purchase_of_the_morning_counts_and_of_the_afternoon_does_not(
    make_ledger, ledger_kit, tmp_path
) -> None:
    lines = [
        ledger_kit.line(1, ledger_kit.at(f"2026-05-{day_and_time}"), 2.0)
        for day_and_time in ("01 10:00", "04 09:00", "04 15:00")
    ]
    noon, later = ledger_kit.at("2026-05-04 12:00"), ledger_kit.at("2026-05-20 12:00")
    ledger, staples = make_ledger(lines), []
    for cutoff in (noon, later):
        snapshot.write_snapshot(
            ledger, tmp_path, as_of=later, cutoffs=[noon, later], timezone="UTC", list_cutoffs=[cutoff]
        )
        staples += pd.read_parquet(tmp_path / "staples" / "part.parquet").itertuples()
    early, late = staples
    assert (early.times, early.recency_days, early.gap_mean_days, early.spend) == (2, 0, 3, 4)
    assert (late.times, late.recency_days, late.gap_mean_days, late.spend) == (2, 16, 3, 6)


def test_a_very_long_product_list_keeps_the_most_recently_bought(
    make_ledger, ledger_kit, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(product_history, "MAX_PRODUCTS", 2)
    point_in_time.batch_plan.cache_clear()
    lines = [ledger_kit.line(1, ledger_kit.at(f"2026-06-0{day} 10:00"), product_key=day) for day in (1, 2, 3)]
    as_of = ledger_kit.at("2026-07-01 00:00")
    snapshot.write_snapshot(make_ledger(lines), tmp_path, as_of=as_of, cutoffs=[as_of], timezone="UTC")
    (history,) = pd.read_parquet(tmp_path / "shelf" / "part.parquet").itertuples()
    point_in_time.batch_plan.cache_clear()
    assert list(history.product_keys) == [3, 2]


def test_baskets_have_the_products_bought_in_a_window(make_ledger, ledger_kit) -> None:
    lines = [
        ledger_kit.line(1, ledger_kit.at("2026-06-01 00:00"), product_key=3),
        ledger_kit.line(1, ledger_kit.at("2026-06-05 00:00"), product_key=2),
        ledger_kit.line(1, ledger_kit.at("2026-06-08 00:00"), product_key=1),
        ledger_kit.line(2, ledger_kit.at("2026-06-02 00:00"), product_key=2, quantity=-1.0, kind="return"),
    ]
    baskets = snapshot.load_baskets(
        make_ledger(lines),
        as_of=ledger_kit.at("2026-07-01 00:00"),
        start=ledger_kit.at("2026-06-01 00:00"),
        end=ledger_kit.at("2026-06-08 00:00"),
    )
    assert baskets.customer_key.tolist() == [1]
    assert list(baskets.product_keys[0]) == [2, 3]
