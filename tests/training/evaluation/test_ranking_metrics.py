"""Metrics of ranked lists, each against arithmetic done by hand."""

import numpy as np
import pandas as pd
import pytest

from training.evaluation import metrics, ranking_metrics


def ranked_rows(**products: list[int]) -> pd.DataFrame:
    rows = [(int(key[1:]), rank, p) for key, own in products.items() for rank, p in enumerate(own, start=1)]
    return pd.DataFrame(rows, columns=["customer_key", "rank", "product_key"])


def test_recall_counts_hits_over_everything_bought() -> None:
    scores = ranking_metrics.mean_metrics(ranked_rows(c1=[5, 6], c2=[5, 6]), ranked_rows(c1=[6, 7, 8], c2=[9]), at=(2,))
    assert scores["recall_2"] == pytest.approx((1 / 3 + 0) / 2)
    assert scores["hit_rate_2"] == pytest.approx(1 / 2)


def test_ndcg_has_an_ideal_capped_at_k() -> None:
    scores = ranking_metrics.mean_metrics(ranked_rows(c1=[5, 6]), ranked_rows(c1=[6, 7, 8]), at=(2,))
    assert scores["ndcg_2"] == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))


def test_a_customer_without_a_list_counts_as_missed() -> None:
    assert ranking_metrics.mean_metrics(ranked_rows(c1=[5]), ranked_rows(c1=[5], c2=[5]), at=(1,))[
        "recall_1"
    ] == pytest.approx(0.5)


def test_an_ideal_that_is_not_capped_counts_every_purchase() -> None:
    scores = ranking_metrics.mean_metrics(ranked_rows(c1=[5, 6]), ranked_rows(c1=[6, 7, 8]), at=(2,))
    assert scores["ndcg_full_2"] == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3) + 1 / np.log2(4)))


def test_average_precision_counts_the_hits_up_to_each_hit() -> None:
    scores = ranking_metrics.mean_metrics(ranked_rows(c1=[6, 5, 7, 9]), ranked_rows(c1=[6, 7, 8]), at=(4,))
    assert scores["map_4"] == pytest.approx((1 / 1 + 2 / 3) / 3)
    capped = ranking_metrics.mean_metrics(ranked_rows(c1=[6]), ranked_rows(c1=[6, 7, 8]), at=(1,))
    assert capped["map_1"] == pytest.approx(1 / 1)


def test_hits_beyond_k_do_not_count() -> None:
    scores = ranking_metrics.mean_metrics(ranked_rows(c1=[5, 6, 7]), ranked_rows(c1=[7]), at=(2, 3))
    assert (scores["recall_2"], scores["hit_rate_2"], scores["map_2"]) == (0, 0, 0)
    assert scores["map_3"] == pytest.approx(1 / 3)


def test_each_customer_has_metrics_of_their_own() -> None:
    frame = ranking_metrics.metrics_per_customer(
        ranked_rows(c1=[5, 6], c3=[5]), ranked_rows(c1=[6, 7], c2=[9]), at=(2,)
    )
    assert frame.index.tolist() == [1, 2]
    assert frame["recall_2"].tolist() == [1 / 2, 0]


def test_without_purchases_there_is_nothing_to_evaluate() -> None:
    assert ranking_metrics.metrics_per_customer(ranked_rows(c1=[5]), ranked_rows(c1=[]), at=(2,)).empty


def test_purchases_are_split_into_repeat_and_new() -> None:
    repeat, new = ranking_metrics.split_repeat_and_new(ranked_rows(c1=[5, 6], c2=[5]), ranked_rows(c1=[5], c2=[7]))
    assert repeat.to_numpy().tolist() == [[1, 5]]
    assert new.to_numpy().tolist() == [[1, 6], [2, 5]]


def test_coverage_is_the_share_of_the_catalogue_in_any_list() -> None:
    scores = ranking_metrics.variety_metrics(ranked_rows(c1=[1, 2], c2=[2, 3]), catalogue=12)
    assert scores["products_shown"] == 3
    assert scores["coverage"] == pytest.approx(3 / 12)
    assert ranking_metrics.variety_metrics(ranked_rows(c1=[1, 2, 3]), at=2)["products_shown"] == 2


def test_novelty_is_in_bits_of_the_share_of_buyers() -> None:
    novelty = ranking_metrics.novelty_per_customer(ranked_rows(c1=[1, 2], c2=[3]), pd.Series({1: 8, 2: 2}), 8)
    assert novelty.to_dict() == pytest.approx(
        {1: (0 + 2) / 2, 2: 3}
    )  # product 3 has no buyer and counts as if it had one


def test_source_shares_are_shares_of_the_positions() -> None:
    ranked = ranked_rows(c1=[1, 2], c2=[3, 4]).assign(source=["again", "again", "again", "new"])
    assert ranking_metrics.source_shares(ranked) == {"source_again": 3 / 4, "source_new": 1 / 4}
    assert ranking_metrics.source_shares(ranked, at=1) == {"source_again": 1}


def test_the_best_order_of_candidates_puts_every_hit_first() -> None:
    candidates = ranked_rows(c1=[9, 8, 7, 6], c2=[1])
    scores = ranking_metrics.upper_bound_per_customer(candidates, ranked_rows(c1=[6, 7, 5], c2=[2]), at=(2,)).mean()
    assert scores["recall_2"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores["ndcg_2"] == pytest.approx((1 + 0) / 2)


def test_the_same_list_for_all_customers_counts_as_one() -> None:
    assert ranking_metrics.variety_metrics(ranked_rows(c1=[1, 2], c2=[1, 2], c3=[2, 1]))[
        "distinct_lists"
    ] == pytest.approx(1 / 3)


def test_offers_are_ranked_within_a_household_and_a_campaign() -> None:
    group = np.array([1, 1, 1, 2, 2, 3])
    redeemed = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    p = np.array([0.9, 0.5, 0.4, 0.3, 0.2, 0.1])
    scores = metrics.group_metrics(group, redeemed, p)
    assert scores["groups"] == 2
    assert scores["map"] == pytest.approx(((1 / 1 + 2 / 3) / 2 + 1 / 2) / 2)
    gains = (1 + 1 / np.log2(4)) / (1 + 1 / np.log2(3)), 1 / np.log2(3)
    assert scores["ndcg_10"] == pytest.approx(sum(gains) / 2)
    # Of the 3 x 3 pairs of a redeemed and an unredeemed offer, all but (0.4, 0.5), (0.2, 0.5), (0.2, 0.3) are in order.
    assert scores["auc"] == pytest.approx(6 / 9)


def test_the_ideal_of_a_ranking_is_capped_at_k() -> None:
    scores = metrics.group_metrics(np.ones(3, np.int64), np.ones(3), np.array([0.3, 0.2, 0.1]), at=2)
    assert scores["ndcg_2"] == pytest.approx(1)
    assert scores["map"] == pytest.approx(1)


def test_groups_are_named_and_equal_chances_keep_their_order() -> None:
    frame = ranking_metrics.metrics_per_group(np.array([7, 7, 4]), np.array([0.0, 1.0, 1.0]), np.array([0.5, 0.5, 0.1]))
    assert frame["map"].to_dict() == {4: 1, 7: 1 / 2}


def test_without_a_redemption_there_is_nothing_to_rank() -> None:
    scores = metrics.group_metrics(np.array([1, 1]), np.zeros(2), np.array([0.2, 0.1]))
    assert scores["groups"] == 0
    assert np.isnan(scores["map"])
