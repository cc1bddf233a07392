"""Together: what shares a basket, what is bought on the visit after, and of whom that may be known."""

from datetime import timedelta

import pandas as pd
import pytest

from features.products import co_purchases, prices
from features.snapshots import snapshot

PHONE, CASE, FILM, MILK, BREAD = 1, 2, 3, 4, 5
GOODS = [{"product_key": key, "category": "things"} for key in (PHONE, CASE, FILM, MILK, BREAD)]


@pytest.fixture
def shop_of(shop, ledger_kit):
    """Visits as (customer, day of May, products), written down; the pairs seen from June on."""

    def pairs(*visits, as_of="2026-06-01 00:00", products=GOODS, min_days=1, **more):
        consents = more.pop("consents", None)
        lines = [
            ledger_kit.line(customer, ledger_kit.at("2026-05-01 09:00") + timedelta(days=day, hours=hour), product_key=product)
            for customer, day, bought in visits for hour, product in enumerate(bought)
        ]  # fmt: skip
        ledger = shop(lines, products=products, consents=consents)
        frame = co_purchases.count_co_purchases(
            ledger, as_of=ledger_kit.at(as_of), timezone="UTC", min_days=min_days, **more
        )
        return frame.set_index(["product_key", "other_key"])

    return pairs


def test_a_pair_is_counted_by_customers_and_by_visits(shop_of) -> None:
    visits = [(customer, 1, [MILK, BREAD]) for customer in (1, 2, 3)]
    pairs = shop_of(*visits, (1, 8, [BREAD, MILK]), (4, 1, [FILM]))
    assert list(pairs.index) == [(MILK, BREAD), (BREAD, MILK)]
    assert pairs.loc[(MILK, BREAD), ["together", "visits", "followed"]].tolist() == [3, 4, 0]
    # Of 5 visits 4 had milk, 4 bread, and 4 both: by chance 4 x 4 / 5 would.
    assert pairs.loc[(MILK, BREAD), "lift"] == pytest.approx(4 / (4 * 4 / 5))
    assert pairs.loc[(MILK, BREAD), "strength"] == pytest.approx(3 * 4 / (4 * 4 / 5 + 1))


def test_what_a_single_household_always_buys_together_is_nobody_elses_news(shop_of) -> None:
    assert shop_of(*[(1, 3 * week, [MILK, FILM]) for week in range(8)], (2, 1, [MILK, FILM])).empty


def test_after_the_phone_comes_the_case_and_not_the_other_way_round(shop_of) -> None:
    visits = [(customer, day, bought) for customer in (1, 2, 3) for day, bought in ((1, [PHONE]), (9, [CASE]))]
    pairs = shop_of(*visits)
    assert list(pairs.index) == [(PHONE, CASE)]
    assert pairs.loc[(PHONE, CASE), ["together", "followed", "lift"]].tolist() == [0, 3, 0]
    # 3 of 6 visits each: by chance 1.5 visits would be shared, and 1 more is doubted.
    assert pairs.loc[(PHONE, CASE), "strength"] == pytest.approx(3 * 3 / (3 * 3 / 6 + 1))


def test_two_customers_who_went_the_same_way_are_counted_as_none(shop_of) -> None:
    """Two would recognise themselves, and each other: alone, or behind three who bought both at once."""
    followed = [(customer, day, bought) for customer in (1, 2) for day, bought in ((1, [PHONE]), (9, [CASE]))]
    assert shop_of(*followed).empty
    beside = [(customer, 1, [PHONE, CASE]) for customer in (3, 4, 5)]
    pairs = shop_of(*followed, *beside)
    assert pairs.loc[(PHONE, CASE), ["together", "visits", "followed"]].tolist() == [3, 3, 0]
    # 5 of 7 visits each, 3 of them shared; the two who came back for a case do not count.
    assert pairs.loc[(PHONE, CASE), "strength"] == pytest.approx(3 * 3 / (5 * 5 / 7 + 1))


def test_what_was_bought_before_the_phone_does_not_follow_it(shop_of) -> None:
    went = ((1, MILK), (4, PHONE), (9, MILK))
    pairs = shop_of(*[(customer, day, [product]) for customer in (1, 2, 3) for day, product in went])
    assert list(pairs.index) == [(MILK, PHONE)]


def test_weeks_later_it_is_no_longer_because_of_the_phone(shop_of) -> None:
    visits = [(customer, day, [product]) for customer in (1, 2, 3) for day, product in ((0, PHONE), (29, CASE))]
    assert shop_of(*visits).empty


def test_nothing_is_seen_of_what_comes_after_the_moment(shop_of) -> None:
    visits = [(customer, 10, [MILK, BREAD]) for customer in (1, 2, 3)]
    assert shop_of(*visits, as_of="2026-05-11 00:00").empty
    assert len(shop_of(*visits, as_of="2026-05-12 00:00")) == 2


def test_only_the_strongest_others_are_kept(shop_of) -> None:
    visits = [(customer, 1, [MILK, BREAD, CASE]) for customer in (1, 2, 3)]
    more = [(customer, 1, [MILK, BREAD]) for customer in (4, 5, 6)]
    pairs = shop_of(*visits, *more, max_others=1)
    assert pairs.loc[MILK].index.tolist() == [BREAD]  # six customers, and not three
    assert pairs.groupby(level=0).size().eq(1).all()


def test_of_a_sensitive_product_only_those_speak_who_allow_it(shop_of) -> None:
    goods = [*GOODS[:2], {"product_key": FILM, "category": "things", "sensitive": True}, *GOODS[3:]]
    visits = [(customer, 1, [MILK, FILM]) for customer in range(4)]

    def asked(*allowing):
        said = [{"customer_key": c, "profiling": True, "profiling_sensitive": c in allowing} for c in range(4)]
        return shop_of(*visits, products=goods, consents=said)

    assert asked(0, 1).empty
    assert asked(0, 1, 2).loc[(MILK, FILM), "together"] == 3


def test_nothing_is_learned_from_who_does_not_allow_profiling(shop_of) -> None:
    visits = [(customer, 1, [MILK, BREAD]) for customer in range(4)]
    said = [{"customer_key": c, "profiling": c != 2, "profiling_sensitive": False} for c in range(4)]
    assert shop_of(*visits, consents=said).loc[(MILK, BREAD), "together"] == 3


def test_a_shop_that_sold_nothing_has_no_pairs(shop, ledger_kit) -> None:
    frame = co_purchases.count_co_purchases(shop([]), as_of=ledger_kit.now, timezone="UTC")
    assert list(frame.columns) == list(co_purchases.COLUMNS)
    assert frame.empty


def test_a_price_is_what_was_paid_or_else_what_is_asked(shop, ledger_kit, tmp_path) -> None:
    as_of = ledger_kit.at("2026-06-01 00:00")
    goods = [{"product_key": 1, "price": 9.0}, {"product_key": 2, "price": 4.0}, {"product_key": 3}]
    lines = [ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"), amount, product_key=1) for amount in (6.0, 8.0)]
    ledger = shop(lines, products=goods)
    snapshot.write_snapshot(ledger, tmp_path / "out", as_of=as_of, cutoffs=[as_of], timezone="UTC")
    going = prices.load_prices(tmp_path / "out", ledger, as_of=as_of)
    expected = pd.DataFrame({"product_key": [1, 2, 3], "price": [(6 + 8) / 2, 4.0, None], "sold": [2.0, 0.0, 0.0]})
    pd.testing.assert_frame_equal(going, expected)
