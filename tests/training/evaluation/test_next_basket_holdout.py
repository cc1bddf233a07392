"""An exam: who and what is judged as of a cutoff, and by what."""

import numpy as np
import pandas as pd
import pytest

from training.evaluation import next_basket_holdout
from training.evaluation.next_basket_holdout import HoldoutCriteria, HoldoutEvaluation

CUTOFF = pd.Timestamp("2025-06-01")


def days(*rows: tuple[int, int, int]) -> pd.DataFrame:
    """Each (customer, product, day counted from the cutoff, -1 for the day before)."""
    frame = pd.DataFrame(rows, columns=["customer_key", "product_key", "day"])
    return frame.assign(day=CUTOFF + pd.to_timedelta(frame["day"], unit="D"))


BEFORE = days((1, 10, -30), (1, 10, -9), (1, 11, -9), (2, 10, -3), (2, 12, -2), (3, 11, -60))
AFTER = days((1, 10, 2), (1, 12, 2), (1, 11, 9), (2, 99, 1), (2, 12, 5), (3, 10, 8), (4, 10, 1))
KINDS = pd.Series({10: "food", 11: "food", 12: "fuel"})


def asked(terms: HoldoutCriteria = HoldoutCriteria()) -> HoldoutEvaluation:
    return next_basket_holdout.build_holdout(BEFORE, AFTER, CUTOFF, 28, criteria=terms, departments=KINDS)


def test_only_products_sold_before_count_and_only_customers_seen_before() -> None:
    exam = asked()
    assert exam.catalogue.tolist() == [10, 11, 12]
    assert exam.customers.tolist() == [1, 2, 3]
    assert 99 not in exam.window_purchases["product_key"].tolist()


def test_the_next_trip_is_the_first_day_of_purchase() -> None:
    trip = asked().next_trip_purchases
    assert trip.to_numpy().tolist() == [[1, 10], [1, 12], [2, 12], [3, 10]]


def test_departments_rare_products_and_rare_customers_can_be_left_out() -> None:
    exam = asked(HoldoutCriteria(min_product_days=2, min_customer_trips=2, excluded_departments=("fuel",)))
    assert exam.catalogue.tolist() == [10, 11]
    assert exam.customers.tolist() == [1], "the others came once"
    assert exam.window_purchases.to_numpy().tolist() == [[1, 10], [1, 11]]


def test_so_many_customers_at_most_are_judged_and_always_the_same() -> None:
    some = [asked(HoldoutCriteria(max_customers=2)).customers.tolist() for _ in range(2)]
    assert some[0] == some[1]
    assert len(some[0]) == 2


def test_activity_is_known_before_the_cutoff() -> None:
    assert asked().activity[3] == "quiet", "not seen for 60 days"
    assert set(asked().activity[[1, 2]]) <= set(next_basket_holdout.ACTIVITY_SEGMENTS[:3])


def answered(**products: list[int]) -> pd.DataFrame:
    rows = [(1, name, rank, p, "again") for name, own in products.items() for rank, p in enumerate(own, start=1)]
    return pd.DataFrame(rows, columns=["customer_key", "list", "rank", "product_key", "source"])


def test_each_list_is_judged_by_its_own_part_of_what_was_bought() -> None:
    look = next_basket_holdout.evaluate_customers(asked(), answered(any=[10, 12], again=[11], new=[12])).loc[1]
    assert look["recall_10"] == pytest.approx(2 / 3)  # of 10, 11, 12
    assert look["repeat_recall_10"] == pytest.approx(1 / 2)  # of 10, 11
    assert look["explore_recall_10"] == pytest.approx(1 / 1)  # of 12
    assert look["again_recall_10"] == pytest.approx(1 / 2)
    assert look["new_hit_rate_10"] == 1
    assert look["trip_recall_10"] == pytest.approx(2 / 2)
    assert look["novelty_10"] == pytest.approx((-np.log2(2 / 3) - np.log2(1 / 3)) / 2)


def test_whoever_bought_nothing_new_is_no_observation_of_new() -> None:
    look = next_basket_holdout.evaluate_customers(asked(), answered(any=[10])).loc[2]
    assert np.isnan(look["new_recall_10"])
    assert look["recall_10"] == 0, "no list, so nothing was hit"


def test_the_ceiling_is_what_all_lists_hold_in_the_best_order() -> None:
    look = next_basket_holdout.evaluate_upper_bound(asked(), answered(any=[5, 10], again=[11], new=[6])).loc[1]
    assert look["recall_10"] == pytest.approx(2 / 3)
    assert look["new_hit_rate_10"] == 0
    assert np.isnan(look["repeat_recall_10"])


def test_the_lists_of_all_show_a_part_of_the_catalogue() -> None:
    told = next_basket_holdout.evaluate_variety(asked(), answered(any=[10, 12]))
    assert told["coverage"] == pytest.approx(2 / 3)
    assert told["source_again"] == 1


def test_an_audience_is_judged_by_how_many_of_its_tenth_bought() -> None:
    before = days(*((who, product, -5) for who in range(20) for product in (10, 11)))
    after = days(*((who, 10 if who < 10 else 11, 1) for who in range(20)))
    exam = next_basket_holdout.build_holdout(before, after, CUTOFF, 28, criteria=HoldoutCriteria(), departments=KINDS)
    early, late = -np.arange(20.0), np.arange(20.0)  # whose tenth is customers 0 and 1, or 18 and 19
    assert next_basket_holdout.evaluate_audience_lift(
        exam, lambda products: early if 10 in products else late
    ) == pytest.approx(1 / (10 / 20))
    assert next_basket_holdout.evaluate_audience_lift(exam, lambda products: early) == pytest.approx((2 + 0) / 2)
    assert np.isnan(next_basket_holdout.evaluate_audience_lift(asked(), lambda products: np.ones(3))), (
        "three customers say nothing"
    )
