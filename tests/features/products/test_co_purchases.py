"""Co-purchases: products of one basket or of a later visit, counted only with consent and from three customers on."""

from datetime import timedelta

import pandas as pd
import pytest

from features.products import co_purchases, prices
from features.snapshots import snapshot

PHONE, CASE, FILM, MILK, BREAD = 1, 2, 3, 4, 5
PRODUCTS = [{"product_key": key, "category": "things"} for key in (PHONE, CASE, FILM, MILK, BREAD)]


@pytest.fixture
def count_pairs(make_ledger, ledger_kit):
    """Product pairs of visits (customer, day of May, products) as of 1 June: count_pairs(visit, visit, ...)."""

    def count(*visits, as_of="2026-06-01 00:00", products=PRODUCTS, min_days=1, **options):
        consents = options.pop("consents", None)
        opened_at = ledger_kit.at("2026-05-01 09:00")
        lines = [
            ledger_kit.line(customer, opened_at + timedelta(days=day, hours=hour), product_key=product)
            for customer, day, bought in visits
            for hour, product in enumerate(bought)
        ]
        ledger = make_ledger(lines, products=products, consents=consents)
        frame = co_purchases.count_co_purchases(
            ledger, as_of=ledger_kit.at(as_of), timezone="UTC", min_days=min_days, **options
        )
        return frame.set_index(["product_key", "other_key"])

    return count


def test_a_pair_is_counted_by_customers_and_by_visits(count_pairs) -> None:
    visits = [(customer, 1, [MILK, BREAD]) for customer in (1, 2, 3)]
    pairs = count_pairs(*visits, (1, 8, [BREAD, MILK]), (4, 1, [FILM]))
    assert list(pairs.index) == [(MILK, BREAD), (BREAD, MILK)]
    assert pairs.loc[(MILK, BREAD), ["together", "visits", "followed"]].tolist() == [3, 4, 0]
    # Of 5 visits 4 had milk, 4 bread, and 4 both: by chance 4 x 4 / 5 would.
    assert pairs.loc[(MILK, BREAD), "lift"] == pytest.approx(4 / (4 * 4 / 5))
    assert pairs.loc[(MILK, BREAD), "strength"] == pytest.approx(3 * 4 / (4 * 4 / 5 + 1))


def test_a_pair_bought_by_too_few_customers_is_left_out(count_pairs) -> None:
    assert count_pairs(*[(1, 3 * week, [MILK, FILM]) for week in range(8)], (2, 1, [MILK, FILM])).empty


def test_a_case_bought_after_a_phone_follows_it_and_not_the_other_way_round(count_pairs) -> None:
    visits = [(customer, day, bought) for customer in (1, 2, 3) for day, bought in ((1, [PHONE]), (9, [CASE]))]
    pairs = count_pairs(*visits)
    assert list(pairs.index) == [(PHONE, CASE)]
    assert pairs.loc[(PHONE, CASE), ["together", "followed", "lift"]].tolist() == [0, 3, 0]
    # 3 of 6 visits each: by chance 1.5 visits would be shared, and 1 more is doubted.
    assert pairs.loc[(PHONE, CASE), "strength"] == pytest.approx(3 * 3 / (3 * 3 / 6 + 1))


def test_a_later_purchase_of_only_two_customers_does_not_count(count_pairs) -> None:
    """Two could recognise themselves and each other: alone, or beside three who bought both at once."""
    followed = [(customer, day, bought) for customer in (1, 2) for day, bought in ((1, [PHONE]), (9, [CASE]))]
    assert count_pairs(*followed).empty
    beside = [(customer, 1, [PHONE, CASE]) for customer in (3, 4, 5)]
    pairs = count_pairs(*followed, *beside)
    assert pairs.loc[(PHONE, CASE), ["together", "visits", "followed"]].tolist() == [3, 3, 0]
    # 5 of 7 visits each, 3 of them shared; the two who came back for a case do not count.
    assert pairs.loc[(PHONE, CASE), "strength"] == pytest.approx(3 * 3 / (5 * 5 / 7 + 1))


def test_a_product_bought_before_the_phone_does_not_follow_it(count_pairs) -> None:
    sequence = ((1, MILK), (4, PHONE), (9, MILK))
    pairs = count_pairs(*[(customer, day, [product]) for customer in (1, 2, 3) for day, product in sequence])
    assert list(pairs.index) == [(MILK, PHONE)]


def test_a_purchase_more_than_four_weeks_later_does_not_follow(count_pairs) -> None:
    visits = [(customer, day, [product]) for customer in (1, 2, 3) for day, product in ((0, PHONE), (29, CASE))]
    assert count_pairs(*visits).empty


def test_visits_after_as_of_do_not_count(count_pairs) -> None:
    visits = [(customer, 10, [MILK, BREAD]) for customer in (1, 2, 3)]
    assert count_pairs(*visits, as_of="2026-05-11 00:00").empty
    assert len(count_pairs(*visits, as_of="2026-05-12 00:00")) == 2


def test_only_the_strongest_pairs_of_a_product_are_returned(count_pairs) -> None:
    visits = [(customer, 1, [MILK, BREAD, CASE]) for customer in (1, 2, 3)]
    more = [(customer, 1, [MILK, BREAD]) for customer in (4, 5, 6)]
    pairs = count_pairs(*visits, *more, max_others=1)
    assert pairs.loc[MILK].index.tolist() == [BREAD]  # six customers, and not three
    assert pairs.groupby(level=0).size().eq(1).all()


def test_a_sensitive_product_counts_only_for_customers_who_consent(count_pairs) -> None:
    products = [*PRODUCTS[:2], {"product_key": FILM, "category": "things", "sensitive": True}, *PRODUCTS[3:]]
    visits = [(customer, 1, [MILK, FILM]) for customer in range(4)]

    def pairs_with_consent(*consenting):
        consents = [{"customer_key": c, "profiling": True, "profiling_sensitive": c in consenting} for c in range(4)]
        return count_pairs(*visits, products=products, consents=consents)

    assert pairs_with_consent(0, 1).empty
    assert pairs_with_consent(0, 1, 2).loc[(MILK, FILM), "together"] == 3


def test_customers_who_refuse_profiling_do_not_count(count_pairs) -> None:
    visits = [(customer, 1, [MILK, BREAD]) for customer in range(4)]
    consents = [{"customer_key": c, "profiling": c != 2, "profiling_sensitive": False} for c in range(4)]
    assert count_pairs(*visits, consents=consents).loc[(MILK, BREAD), "together"] == 3


def test_a_shop_that_sold_nothing_has_no_pairs(make_ledger, ledger_kit) -> None:
    frame = co_purchases.count_co_purchases(make_ledger([]), as_of=ledger_kit.now, timezone="UTC")
    assert list(frame.columns) == list(co_purchases.COLUMNS)
    assert frame.empty


def test_a_price_is_the_average_paid_or_else_the_list_price(make_ledger, ledger_kit, tmp_path) -> None:
    as_of = ledger_kit.at("2026-06-01 00:00")
    products = [{"product_key": 1, "price": 9.0}, {"product_key": 2, "price": 4.0}, {"product_key": 3}]
    lines = [ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"), amount, product_key=1) for amount in (6.0, 8.0)]
    ledger = make_ledger(lines, products=products)
    snapshot.write_snapshot(ledger, tmp_path / "out", as_of=as_of, cutoffs=[as_of], timezone="UTC")
    loaded = prices.load_prices(tmp_path / "out", ledger, as_of=as_of)
    expected = pd.DataFrame({"product_key": [1, 2, 3], "price": [(6 + 8) / 2, 4.0, None], "sold": [2.0, 0.0, 0.0]})
    pd.testing.assert_frame_equal(loaded, expected)
