"""Ranked lists, each figure against arithmetic done by hand."""

import numpy as np
import pandas as pd
import pytest

from training import lists, metrics


def shown(**products: list[int]) -> pd.DataFrame:
    rows = [(int(key[1:]), rank, p) for key, own in products.items() for rank, p in enumerate(own, start=1)]
    return pd.DataFrame(rows, columns=["customer_key", "rank", "product_key"])


def test_recall_counts_hits_over_everything_bought() -> None:
    figures = lists.ranking(shown(c1=[5, 6], c2=[5, 6]), shown(c1=[6, 7, 8], c2=[9]), at=(2,))
    assert figures["recall_2"] == pytest.approx((1 / 3 + 0) / 2)
    assert figures["hit_rate_2"] == pytest.approx(1 / 2)


def test_ndcg_has_an_ideal_capped_at_k() -> None:
    figures = lists.ranking(shown(c1=[5, 6]), shown(c1=[6, 7, 8]), at=(2,))
    assert figures["ndcg_2"] == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))


def test_a_customer_without_a_list_counts_as_missed() -> None:
    assert lists.ranking(shown(c1=[5]), shown(c1=[5], c2=[5]), at=(1,))["recall_1"] == pytest.approx(0.5)


def test_the_same_list_for_everyone_shows() -> None:
    assert lists.variety(shown(c1=[1, 2], c2=[1, 2], c3=[2, 1]))["distinct_lists"] == pytest.approx(1 / 3)


def test_offers_are_ranked_within_a_household_and_a_campaign() -> None:
    group = np.array([1, 1, 1, 2, 2, 3])
    taken = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    p = np.array([0.9, 0.5, 0.4, 0.3, 0.2, 0.1])
    figures = metrics.groups(group, taken, p)
    assert figures["groups"] == 2
    assert figures["map"] == pytest.approx(((1 / 1 + 2 / 3) / 2 + 1 / 2) / 2)
    gains = (1 + 1 / np.log2(4)) / (1 + 1 / np.log2(3)), 1 / np.log2(3)
    assert figures["ndcg_10"] == pytest.approx(sum(gains) / 2)
    # Of the 3 x 3 pairs of a redeemed and a passed-over offer, all but (0.4, 0.5), (0.2, 0.5), (0.2, 0.3) are in order.
    assert figures["auc"] == pytest.approx(6 / 9)


def test_the_ideal_of_a_ranking_is_capped_at_k() -> None:
    figures = metrics.groups(np.ones(3, np.int64), np.ones(3), np.array([0.3, 0.2, 0.1]), at=2)
    assert figures["ndcg_2"] == pytest.approx(1)
    assert figures["map"] == pytest.approx(1)


def test_without_a_redemption_there_is_nothing_to_rank() -> None:
    figures = metrics.groups(np.array([1, 1]), np.zeros(2), np.array([0.2, 0.1]))
    assert figures["groups"] == 0
    assert np.isnan(figures["map"])
