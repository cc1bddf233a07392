"""Weekly unit sales: to all customers, by the shop's own days, and nothing recorded at as_of or later."""

from datetime import timedelta

from features.products import weekly_sales

ZONE = "America/New_York"


def weekly_units(ledger, as_of, *, count=3):
    sales = weekly_sales.load_weekly_units(ledger, as_of=as_of, timezone=ZONE, weeks=count)
    rows = zip(sales["product_key"], sales["weeks_back"], sales["units"], strict=True)
    return {(int(product), int(back)): units for product, back, units in rows}


def test_the_seven_days_before_are_the_first_week_back(make_ledger, ledger_kit) -> None:
    as_of = ledger_kit.at("2026-03-15 00:00", ZONE)
    lines = [ledger_kit.line(7, as_of - timedelta(days=days, hours=-9), quantity=2.0) for days in (1, 7, 8, 21, 22)]
    assert weekly_units(make_ledger(lines), as_of) == {(1, 1): 2 * 2.0, (1, 2): 2.0, (1, 3): 2.0}


def test_anonymous_sales_count_and_returns_do_not(make_ledger, ledger_kit) -> None:
    as_of = ledger_kit.at("2026-03-15 00:00", ZONE)
    yesterday = as_of - timedelta(hours=9)
    lines = [
        ledger_kit.line(7, yesterday),
        ledger_kit.line(None, yesterday, quantity=3.0),
        ledger_kit.line(8, yesterday, product_key=2, kind="return", quantity=1.0),
    ]
    assert weekly_units(make_ledger(lines), as_of) == {(1, 1): 1.0 + 3.0}


def test_a_sale_before_midnight_belongs_to_the_shops_own_day(make_ledger, ledger_kit) -> None:
    as_of = ledger_kit.at("2026-03-15 00:00", ZONE)
    lines = [
        ledger_kit.line(7, ledger_kit.at("2026-03-07 23:30", ZONE)),
        ledger_kit.line(7, ledger_kit.at("2026-03-08 00:30", ZONE)),
    ]
    assert weekly_units(make_ledger(lines), as_of) == {(1, 1): 1.0, (1, 2): 1.0}


def test_later_late_recorded_and_superseded_lines_do_not_count(make_ledger, ledger_kit) -> None:
    as_of = ledger_kit.at("2026-03-15 00:00", ZONE)
    before = as_of - timedelta(days=2)
    lines = [
        ledger_kit.line(7, before),
        ledger_kit.line(7, as_of + timedelta(hours=1), product_key=2),
        ledger_kit.line(7, before, product_key=3, known_at=as_of + timedelta(days=1)),
        ledger_kit.line(7, before, quantity=5.0, superseded_at=before + timedelta(hours=1)),
    ]
    assert weekly_units(make_ledger(lines), as_of) == {(1, 1): 1.0}


def test_worth_is_what_was_paid_and_an_empty_shop_sold_nothing(make_ledger, ledger_kit) -> None:
    as_of = ledger_kit.at("2026-03-15 00:00", ZONE)
    lines = [ledger_kit.line(7, as_of - timedelta(days=1), 2.5), ledger_kit.line(8, as_of - timedelta(days=1), None)]
    sales = weekly_sales.load_weekly_units(make_ledger(lines), as_of=as_of, timezone=ZONE, weeks=1)
    assert sales[["units", "worth"]].to_numpy().tolist() == [[2.0, 2.5]]
    assert weekly_sales.load_weekly_units(make_ledger([], "none"), as_of=as_of, timezone=ZONE, weeks=1).empty
