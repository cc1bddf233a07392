"""Category history: how much, how often and how regularly a customer buys of each category."""

import numpy as np
import pandas as pd
import pytest

from features.families import category_history
from features.snapshots import snapshot

PRODUCTS = [
    {"product_key": 1, "category": "milk"},
    {"product_key": 2, "category": "milk"},
    {"product_key": 3, "category": "bread"},
    {"product_key": 4, "category": ""},
    {"product_key": 5, "category": None},
]


@pytest.fixture
def category_snapshot(make_ledger, ledger_kit, tmp_path):
    def line(customer: int, day: str, product: int, amount: float, **fields: object) -> dict:
        return ledger_kit.line(customer, ledger_kit.at(f"2026-{day} 10:00"), amount, product_key=product, **fields)

    lines = [
        line(1, "05-01", 1, 2.0),
        line(1, "05-08", 2, 3.0, quantity=2.0),
        line(1, "05-22", 1, 2.0),
        line(1, "05-22", 2, 3.0),
        line(1, "06-01", 1, 2.5, quantity=3.0),
        line(1, "06-20", 3, 4.0),
        line(1, "06-21", 4, 9.0),
        line(2, "06-21", 5, 9.0),
        line(3, "06-29", 3, 4.0),
    ]
    as_of = ledger_kit.at("2026-07-01 00:00")
    ledger = make_ledger(lines, products=PRODUCTS)
    snapshot.write_snapshot(ledger, tmp_path, as_of=as_of, cutoffs=[as_of], timezone="UTC")
    return ledger, pd.read_parquet(tmp_path / "needs" / "part.parquet")


def test_purchases_of_a_category_are_counted_by_days_whatever_the_product(category_snapshot) -> None:
    _, frame = category_snapshot
    pairs = category_history.explode_lists(frame)
    assert pairs.customer_key.tolist() == [1, 1, 3]
    assert pairs.category.tolist() == ["milk", "bread", "bread"]
    milk = pairs.iloc[0]
    gaps = [7, 14, 10]
    mean = sum(gaps) / 3
    assert (milk.need_times, milk.need_recency_days, milk.need_first_days) == (4, 30, 61)
    assert milk.need_gap_mean_days == pytest.approx(mean)
    assert milk.need_gap_cv == pytest.approx(np.std(gaps) / mean)
    assert (milk.need_gap_median_days, milk.need_gap_max_days, milk.need_gap_last_days) == (10, 14, 10)
    assert (milk.need_spend, milk.need_spend_last) == (2 + 3 + 5 + 2.5, 2.5)
    assert (milk.need_pieces_per_day, milk.need_pieces_last) == ((1 + 2 + 2 + 3) / 4, 3)
    assert (milk.need_times_28d, milk.need_times_90d) == (0, 4)
    assert milk.need_weight_45d == pytest.approx(sum(0.5 ** (age / 45) for age in (61, 54, 40, 30)))
    assert milk.need_overdue_ratio == 30 / 10
    assert (milk.need_place, milk.need_categories_count) == (1, 2)


def test_a_category_bought_once_has_no_gap(category_snapshot) -> None:
    _, frame = category_snapshot
    bread = category_history.explode_lists(frame).iloc[2]
    assert (bread.need_times, bread.need_recency_days, bread.need_weight_share) == (1, 2, 1)
    assert np.isnan([bread.need_gap_mean_days, bread.need_overdue_ratio]).all()


def test_products_without_a_category_are_left_out(category_snapshot) -> None:
    _, frame = category_snapshot
    assert frame.customer_key.tolist() == [1, 3]


def test_pairs_repeat_the_other_features_of_the_customer(category_snapshot) -> None:
    _, frame = category_snapshot
    without_categories = pd.DataFrame(
        {"customer_key": [9], "event_timestamp": frame.event_timestamp[:1], "categories": [None]}
    )
    extended = pd.concat([frame.drop(columns="created"), without_categories], ignore_index=True).assign(
        recency_days=[9.0, 2.0, 1.0]
    )
    pairs = category_history.explode_lists(extended)
    assert pairs.recency_days.tolist() == [9, 9, 2]
    assert list(pairs.columns) == ["customer_key", "as_of", "category", *category_history.COLUMNS, "recency_days"]
    assert set(pairs[[*category_history.COLUMNS]].dtypes.astype(str)) == {"float64"}


def test_without_customers_there_are_no_pairs(category_snapshot) -> None:
    _, frame = category_snapshot
    assert category_history.explode_lists(frame.head(0)).empty
    assert set(category_history.COLUMNS) < set(category_history.explode_lists(frame.head(0)).columns)


def test_a_very_long_list_keeps_the_most_recently_bought(make_ledger, ledger_kit, tmp_path, monkeypatch) -> None:
    from features.snapshots import point_in_time

    monkeypatch.setattr(category_history, "MAX_CATEGORIES", 2)
    point_in_time.batch_plan.cache_clear()
    products = [{"product_key": key, "category": f"c{key}"} for key in (1, 2, 3)]
    lines = [ledger_kit.line(1, ledger_kit.at(f"2026-06-0{key} 10:00"), product_key=key) for key in (1, 2, 3)]
    as_of = ledger_kit.at("2026-07-01 00:00")
    snapshot.write_snapshot(
        make_ledger(lines, products=products), tmp_path, as_of=as_of, cutoffs=[as_of], timezone="UTC"
    )
    point_in_time.batch_plan.cache_clear()
    assert list(pd.read_parquet(tmp_path / "needs" / "part.parquet").categories[0]) == ["c3", "c2"]


def test_category_days_are_per_customer_and_category(category_snapshot, ledger_kit) -> None:
    ledger, _ = category_snapshot
    pairs = snapshot.load_category_days(
        ledger, as_of=ledger_kit.at("2026-07-01 00:00"), timezone="UTC", start=ledger_kit.at("2026-05-22 00:00")
    )
    days = [(1, "bread", "06-20"), (1, "milk", "05-22"), (1, "milk", "06-01"), (3, "bread", "06-29")]
    assert pairs.to_dict("records") == [
        {"customer_key": key, "category": category, "day": pd.Timestamp(f"2026-{day}")} for key, category, day in days
    ]
