"""The next-basket hold-out: which customers and products are evaluated at a cutoff, and by which metrics."""

import numpy as np
import pandas as pd
import pytest

from training.evaluation import next_basket_holdout
from training.evaluation.next_basket_holdout import HoldoutCriteria, HoldoutEvaluation

CUTOFF = pd.Timestamp("2025-06-01")


def purchase_days(*rows: tuple[int, int, int]) -> pd.DataFrame:
    """Purchase days of rows (customer, product, day counted from the cutoff; -1 is the day before)."""
    frame = pd.DataFrame(rows, columns=["customer_key", "product_key", "day"])
    return frame.assign(day=CUTOFF + pd.to_timedelta(frame["day"], unit="D"))


BEFORE = purchase_days((1, 10, -30), (1, 10, -9), (1, 11, -9), (2, 10, -3), (2, 12, -2), (3, 11, -60))
AFTER = purchase_days((1, 10, 2), (1, 12, 2), (1, 11, 9), (2, 99, 1), (2, 12, 5), (3, 10, 8), (4, 10, 1))
DEPARTMENTS = pd.Series({10: "food", 11: "food", 12: "fuel"})


def build_example(criteria: HoldoutCriteria = HoldoutCriteria()) -> HoldoutEvaluation:
    return next_basket_holdout.build_holdout(BEFORE, AFTER, CUTOFF, 28, criteria=criteria, departments=DEPARTMENTS)


def test_only_products_sold_before_and_only_customers_with_earlier_purchases_count() -> None:
    holdout = build_example()
    assert holdout.catalogue.tolist() == [10, 11, 12]
    assert holdout.customers.tolist() == [1, 2, 3]
    assert 99 not in holdout.window_purchases["product_key"].tolist()


def test_the_next_trip_is_the_first_day_of_purchase() -> None:
    trip = build_example().next_trip_purchases
    assert trip.to_numpy().tolist() == [[1, 10], [1, 12], [2, 12], [3, 10]]


def test_departments_rare_products_and_rare_customers_can_be_left_out() -> None:
    holdout = build_example(HoldoutCriteria(min_product_days=2, min_customer_trips=2, excluded_departments=("fuel",)))
    assert holdout.catalogue.tolist() == [10, 11]
    assert holdout.customers.tolist() == [1], "the others came once"
    assert holdout.window_purchases.to_numpy().tolist() == [[1, 10], [1, 11]]


def test_at_most_max_customers_are_evaluated_and_always_the_same() -> None:
    samples = [build_example(HoldoutCriteria(max_customers=2)).customers.tolist() for _ in range(2)]
    assert samples[0] == samples[1]
    assert len(samples[0]) == 2


def test_activity_is_measured_before_the_cutoff() -> None:
    assert build_example().activity[3] == "quiet", "no purchase for 60 days"
    assert set(build_example().activity[[1, 2]]) <= set(next_basket_holdout.ACTIVITY_SEGMENTS[:3])


def ranked_lists(**products: list[int]) -> pd.DataFrame:
    rows = [(1, name, rank, p, "again") for name, own in products.items() for rank, p in enumerate(own, start=1)]
    return pd.DataFrame(rows, columns=["customer_key", "list", "rank", "product_key", "source"])


def test_each_list_is_evaluated_on_its_own_part_of_the_purchases() -> None:
    metrics = next_basket_holdout.evaluate_customers(
        build_example(), ranked_lists(any=[10, 12], again=[11], new=[12])
    ).loc[1]
    assert metrics["recall_10"] == pytest.approx(2 / 3)  # of 10, 11, 12
    assert metrics["repeat_recall_10"] == pytest.approx(1 / 2)  # of 10, 11
    assert metrics["explore_recall_10"] == pytest.approx(1 / 1)  # of 12
    assert metrics["again_recall_10"] == pytest.approx(1 / 2)
    assert metrics["new_hit_rate_10"] == 1
    assert metrics["trip_recall_10"] == pytest.approx(2 / 2)
    assert metrics["novelty_10"] == pytest.approx((-np.log2(2 / 3) - np.log2(1 / 3)) / 2)


def test_a_customer_who_bought_nothing_new_is_no_observation_of_the_new_list() -> None:
    metrics = next_basket_holdout.evaluate_customers(build_example(), ranked_lists(any=[10])).loc[2]
    assert np.isnan(metrics["new_recall_10"])
    assert metrics["recall_10"] == 0, "no list, so nothing was hit"


def test_the_upper_bound_is_all_lists_in_the_best_order() -> None:
    metrics = next_basket_holdout.evaluate_upper_bound(
        build_example(), ranked_lists(any=[5, 10], again=[11], new=[6])
    ).loc[1]
    assert metrics["recall_10"] == pytest.approx(2 / 3)
    assert metrics["new_hit_rate_10"] == 0
    assert np.isnan(metrics["repeat_recall_10"])


def test_coverage_is_the_part_of_the_catalogue_in_the_lists_of_all() -> None:
    variety = next_basket_holdout.evaluate_variety(build_example(), ranked_lists(any=[10, 12]))
    assert variety["coverage"] == pytest.approx(2 / 3)
    assert variety["source_again"] == 1


def test_an_audience_is_evaluated_by_the_buyers_in_its_top_tenth() -> None:
    before = purchase_days(*((customer, product, -5) for customer in range(20) for product in (10, 11)))
    after = purchase_days(*((customer, 10 if customer < 10 else 11, 1) for customer in range(20)))
    holdout = next_basket_holdout.build_holdout(
        before, after, CUTOFF, 28, criteria=HoldoutCriteria(), departments=DEPARTMENTS
    )
    early, late = -np.arange(20.0), np.arange(20.0)  # the top tenth is customers 0 and 1, or 18 and 19
    assert next_basket_holdout.evaluate_audience_lift(
        holdout, lambda products: early if 10 in products else late
    ) == pytest.approx(1 / (10 / 20))
    assert next_basket_holdout.evaluate_audience_lift(holdout, lambda products: early) == pytest.approx((2 + 0) / 2)
    assert np.isnan(next_basket_holdout.evaluate_audience_lift(build_example(), lambda products: np.ones(3))), (
        "three customers are too few"
    )
