"""What was sold week by week: to anybody, by the shop's own days, and nothing that was not known yet."""

from datetime import timedelta

from features.products import weekly_sales

ZONE = "America/New_York"


def sold(ledger, as_of, *, count=3):
    found = weekly_sales.load_weekly_units(ledger, as_of=as_of, timezone=ZONE, weeks=count)
    rows = zip(found["product_key"], found["weeks_back"], found["units"], strict=True)
    return {(int(product), int(back)): units for product, back, units in rows}


def test_the_seven_days_before_are_the_first_week_back(shop, ledger_kit) -> None:
    now = ledger_kit.at("2026-03-15 00:00", ZONE)
    lines = [ledger_kit.line(7, now - timedelta(days=days, hours=-9), quantity=2.0) for days in (1, 7, 8, 21, 22)]
    assert sold(shop(lines), now) == {(1, 1): 2 * 2.0, (1, 2): 2.0, (1, 3): 2.0}


def test_whoever_bought_it_it_is_gone_and_what_came_back_was_no_sale(shop, ledger_kit) -> None:
    now = ledger_kit.at("2026-03-15 00:00", ZONE)
    yesterday = now - timedelta(hours=9)
    lines = [
        ledger_kit.line(7, yesterday),
        ledger_kit.line(None, yesterday, quantity=3.0),
        ledger_kit.line(8, yesterday, product_key=2, kind="return", quantity=1.0),
    ]
    assert sold(shop(lines), now) == {(1, 1): 1.0 + 3.0}


def test_late_evening_belongs_to_the_shops_own_day(shop, ledger_kit) -> None:
    now = ledger_kit.at("2026-03-15 00:00", ZONE)
    lines = [
        ledger_kit.line(7, ledger_kit.at("2026-03-07 23:30", ZONE)),
        ledger_kit.line(7, ledger_kit.at("2026-03-08 00:30", ZONE)),
    ]
    assert sold(shop(lines), now) == {(1, 1): 1.0, (1, 2): 1.0}


def test_nothing_from_later_and_nothing_not_yet_known_is_counted(shop, ledger_kit) -> None:
    now = ledger_kit.at("2026-03-15 00:00", ZONE)
    before = now - timedelta(days=2)
    lines = [
        ledger_kit.line(7, before),
        ledger_kit.line(7, now + timedelta(hours=1), product_key=2),
        ledger_kit.line(7, before, product_key=3, known_at=now + timedelta(days=1)),
        ledger_kit.line(7, before, quantity=5.0, superseded_at=before + timedelta(hours=1)),
    ]
    assert sold(shop(lines), now) == {(1, 1): 1.0}


def test_worth_is_what_was_paid_and_an_empty_shop_sold_nothing(shop, ledger_kit) -> None:
    now = ledger_kit.at("2026-03-15 00:00", ZONE)
    lines = [ledger_kit.line(7, now - timedelta(days=1), 2.5), ledger_kit.line(8, now - timedelta(days=1), None)]
    found = weekly_sales.load_weekly_units(shop(lines), as_of=now, timezone=ZONE, weeks=1)
    assert found[["units", "worth"]].to_numpy().tolist() == [[2.0, 2.5]]
    assert weekly_sales.load_weekly_units(shop([], "none"), as_of=now, timezone=ZONE, weeks=1).empty
