"""Features of three customers of a small shop, with the expected values as arithmetic."""

import math

import pandas as pd
import pytest

from features.snapshots import snapshot

REGULAR, LAPSED, ONCE = 101, 202, 303


@pytest.fixture
def feature_rows(make_ledger, ledger_kit, tmp_path) -> pd.DataFrame:
    def line(customer: int, day: str, amount: float | None, **fields: object) -> dict:
        return ledger_kit.line(customer, ledger_kit.at(f"2026-{day} 10:00"), amount, **fields)

    lines = [
        line(REGULAR, "06-01", 10.0, product_key=1, discount=2.0),
        line(REGULAR, "06-01", 5.0, product_key=3),
        line(REGULAR, "06-08", 20.0, product_key=1),
        line(REGULAR, "06-09", -4.0, kind="return", quantity=-1.0),
        line(REGULAR, "06-22", 30.0, product_key=2, store_id="station"),
        line(REGULAR, "06-26", 15.0, product_key=1),
        line(LAPSED, "01-10", 8.0, product_key=1),
        line(LAPSED, "01-20", 12.0, product_key=99),
        line(ONCE, "06-30", None, product_key=3),
        line(404, "06-30", -5.0, kind="return", quantity=-1.0),
        ledger_kit.line(None, ledger_kit.at("2026-06-30 11:00"), 99.0),
    ]
    as_of = ledger_kit.at("2026-07-01 00:00")
    snapshot.write_snapshot(make_ledger(lines), tmp_path, as_of=as_of, cutoffs=[as_of], timezone="UTC")
    return ledger_kit.read_families(tmp_path).set_index("customer_key")


def test_only_customers_who_bought_have_a_row(feature_rows) -> None:
    assert list(feature_rows.index) == [REGULAR, LAPSED, ONCE]


def test_recency_and_frequency_of_a_regular(feature_rows) -> None:
    row = feature_rows.loc[REGULAR]
    gaps = [7, 14, 4]
    mean = sum(gaps) / 3
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / 3)
    assert (row.recency_days, row.tenure_days, row.span_days, row.purchase_days) == (5, 30, 25, 4)
    assert row.gap_mean_days == pytest.approx(mean)
    assert row.gap_std_days == pytest.approx(deviation)
    assert row.gap_cv == pytest.approx(deviation / mean)
    assert (row.gap_median_days, row.gap_max_days, row.gap_last_days) == (7, 14, 4)
    assert row.gap_long_days == pytest.approx(7 + 0.6 * (14 - 7))
    assert row.overdue_ratio == pytest.approx(5 / 7)
    assert row.gap_trend == pytest.approx(1)
    assert (row.purchase_days_7d, row.purchase_days_14d, row.purchase_days_28d) == (1, 2, 3)
    assert (row.purchase_days_28d_before, row.purchase_days_90d_before) == (1, 0)
    assert row.purchase_days_decayed_14d == pytest.approx(sum(0.5 ** (age / 14) for age in (30, 23, 9, 5)))
    assert (row.weekday_0_share, row.weekday_4_share) == (3 / 4, 1 / 4)
    assert row.active_weeks_share == pytest.approx(3 / 5)  # weeks of 1, 8, 22 June; of 1 June to 1 July


def test_spend_of_a_regular(feature_rows) -> None:
    row = feature_rows.loc[REGULAR]
    assert row.spend_total == pytest.approx(10 + 5 + 20 - 4 + 30 + 15)
    assert (row.spend_7d, row.spend_7d_before, row.spend_28d) == (15, 30, 20 - 4 + 30 + 15)
    assert row.spend_28d_before == pytest.approx(15)
    assert row.spend_trend_28d == pytest.approx(61 / 76)
    values = [15, 20, 30, 15]
    assert row.baskets_total == 4
    assert row.basket_value_mean == pytest.approx(80 / 4)
    assert row.basket_value_std == pytest.approx(math.sqrt(sum((value - 20) ** 2 for value in values) / 4))
    assert (row.basket_value_last, row.spend_day_max, row.spend_day_last) == (15, 30, 15)
    assert row.basket_lines_mean == pytest.approx(5 / 4)
    assert row.discount_share == pytest.approx(2 / (80 + 2))
    assert (row.return_share, row.return_days) == (4 / 80, 1)


def test_product_mix_of_a_regular(feature_rows) -> None:
    row = feature_rows.loc[REGULAR]
    dairy, bakery = 75 / 80, 5 / 80
    assert (row.products_count, row.department_count, row.category_count, row.store_count) == (3, 2, 3, 2)
    assert row.repeat_share == pytest.approx((5 - 3) / 5)
    assert (row.products_new_28d, row.products_new_90d) == (1, 3)
    assert row.department_top_share == pytest.approx(dairy)
    assert row.department_entropy == pytest.approx(-dairy * math.log(dairy) - bakery * math.log(bakery))
    assert row.category_top_share == pytest.approx(45 / 80)
    assert row.brand_top_share == pytest.approx(50 / 80)
    assert row.store_top_share == pytest.approx(50 / 80)


def test_a_lapsed_customer_is_long_overdue_and_shops_outside_the_catalogue(feature_rows) -> None:
    row = feature_rows.loc[LAPSED]
    assert row.recency_days == 11 + 28 + 31 + 30 + 31 + 30 + 1
    assert row.overdue_ratio == row.overdue_max_ratio == row.recency_days / 10
    assert (row.purchase_days_90d, row.spend_90d, row.purchase_days_90d_before) == (0, 0, 2)
    assert (row.department_count, row.department_top_share) == (2, 12 / 20)


def test_one_purchase_leaves_features_of_gaps_empty(feature_rows) -> None:
    row = feature_rows.loc[ONCE]
    gaps = [name for name in feature_rows.columns if name.startswith(("gap_", "overdue_"))]
    assert row[gaps].isna().all()
    assert (row.recency_days, row.purchase_days, row.spend_total) == (1, 1, 0)
    assert math.isnan(row.basket_value_std)


def test_every_feature_is_a_float_and_never_infinite(feature_rows) -> None:
    numbers = feature_rows.drop(columns="event_timestamp")
    assert set(numbers.dtypes.astype(str)) == {"float64"}
    assert not numbers.isin([math.inf, -math.inf]).any().any()


def test_a_return_under_the_old_order_number_does_not_move_the_sale(make_ledger, ledger_kit, tmp_path) -> None:
    sale = ledger_kit.line(1, ledger_kit.at("2026-06-01 10:00"), 10.0, order_key=7)
    back = ledger_kit.line(1, ledger_kit.at("2026-06-20 10:00"), -10.0, order_key=7, kind="return", quantity=-1.0)
    early, late = ledger_kit.at("2026-06-10 00:00"), ledger_kit.at("2026-07-01 00:00")
    snapshot.write_snapshot(make_ledger([sale, back]), tmp_path, as_of=late, cutoffs=[early, late], timezone="UTC")
    first, second = ledger_kit.read_families(tmp_path).itertuples()
    assert (first.spend_total, first.recency_days) == (10, 9)
    assert (second.spend_total, second.recency_days, second.purchase_days) == (0, 30, 1)


def test_a_day_of_returns_is_no_purchase_day(make_ledger, ledger_kit, tmp_path) -> None:
    lines = [
        ledger_kit.line(1, ledger_kit.at("2026-06-01 10:00"), 10.0),
        ledger_kit.line(1, ledger_kit.at("2026-06-20 10:00"), 3.0),
        ledger_kit.line(1, ledger_kit.at("2026-06-20 11:00"), -9.0, kind="return", quantity=-1.0),
    ]
    as_of = ledger_kit.at("2026-07-01 00:00")
    ledger = make_ledger(lines)
    snapshot.write_snapshot(ledger, tmp_path, as_of=as_of, cutoffs=[as_of], timezone="UTC")
    assert ledger_kit.read_families(tmp_path).recency_days.item() == 30
    assert len(snapshot.load_purchases(ledger, as_of=as_of, timezone="UTC")) == 1
