"""Offers that go with what somebody has just bought for the first time: a phone, and then its case."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from customers.reports import recommendation_reasons
from features.products import co_purchases
from serving.offers import complementary_offers

PHONE, CASE, FILM, MILK = 1, 2, 3, 4
CASES, FILMS = 10, 20
COVERS = pd.DataFrame({"offer_key": [CASES, FILMS], "product_key": [CASE, FILM]})
PAIRS = pd.DataFrame({"product_key": [PHONE, PHONE, MILK], "other_key": [CASE, FILM, FILM], "lift": [8.0, 4.0, 9.0]})


def shelf(**bought: tuple[list[int], list[int], list[int]]) -> pd.DataFrame:
    """A row a customer: what they bought, on how many days, and how long ago last."""
    rows = [{"product_keys": np.array(keys), "times": np.array(times), "last_days": np.array(days)}
            for keys, times, days in bought.values()]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_new_phone_brings_offers_on_its_case_and_film() -> None:
    figures = shelf(ann=([PHONE, MILK], [1, 9], [3, 2]), bob=([MILK], [9], [2]))
    found = complementary_offers.find_complementary_offers(figures, COVERS, PAIRS)
    assert found.to_dict("list") == {
        "row": [0, 0], "offer_key": [CASES, FILMS], "lift": [8.0, 4.0], "evidence_key": [PHONE, PHONE], "days": [3, 3],
    }  # fmt: skip


@pytest.mark.parametrize(("times", "days"), [(2, 3), (1, complementary_offers.RECENT_DAYS + 1)])
def test_what_is_bought_again_or_long_ago_is_no_news(times: int, days: int) -> None:
    assert complementary_offers.find_complementary_offers(shelf(ann=([PHONE], [times], [days])), COVERS, PAIRS).empty


def test_of_several_reasons_the_one_with_the_highest_lift_is_told() -> None:
    (found,) = complementary_offers.find_complementary_offers(
        shelf(ann=([PHONE, MILK], [1, 1], [3, 2])), COVERS.tail(1), PAIRS
    ).itertuples()
    assert (found.offer_key, found.evidence_key, found.lift) == (FILMS, MILK, 9.0)


def test_what_is_sensitive_is_no_reason_but_for_who_allows_it() -> None:
    """Ann and Bob have both bought milk; without it the phone speaks for the film."""
    both = ([PHONE, MILK], [1, 1], [3, 2])
    found = complementary_offers.find_complementary_offers(
        shelf(ann=both, bob=both), COVERS.tail(1), PAIRS, hidden={MILK}, is_consenting=np.array([True, False])
    )
    assert found["evidence_key"].tolist() == [MILK, PHONE]
    assert complementary_offers.find_complementary_offers(
        shelf(ann=both), COVERS.tail(1), PAIRS, hidden={MILK, PHONE}
    ).empty


def test_nobody_and_nothing_go_with_each_other() -> None:
    nobody = pd.DataFrame({"product_keys": [None], "times": [None], "last_days": [None]})
    assert complementary_offers.find_complementary_offers(nobody, COVERS, PAIRS).empty
    assert complementary_offers.find_complementary_offers(shelf(ann=([PHONE], [1], [3])), COVERS, PAIRS.head(0)).empty


def test_only_strong_pairs_of_the_last_night_are_told(tmp_path: Path) -> None:
    assert complementary_offers.load_complements(tmp_path).empty
    weak = PAIRS.assign(
        lift=[8.0, complementary_offers.MIN_LIFT - 0.1, 9.0], together=5, visits=5, followed=2, strength=1.0
    )
    co_purchases.save_co_purchases(weak, tmp_path)
    assert complementary_offers.load_complements(tmp_path)["other_key"].tolist() == [CASE, FILM]


def test_the_reason_names_what_was_bought() -> None:
    assert recommendation_reasons.complement_reason("Phone X", 3) == "goes with Phone X, bought 3 days ago"
