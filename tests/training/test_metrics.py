"""Metrics, each against arithmetic done by hand."""

import numpy as np
import pandas as pd
import pytest

from training import metrics


def lists(**products: list[int]) -> pd.DataFrame:
    rows = [(int(key[1:]), rank, p) for key, own in products.items() for rank, p in enumerate(own, start=1)]
    return pd.DataFrame(rows, columns=["customer_key", "rank", "product_key"])


def test_recall_counts_hits_over_everything_bought() -> None:
    figures = metrics.ranking(lists(c1=[5, 6], c2=[5, 6]), lists(c1=[6, 7, 8], c2=[9]), at=(2,))
    assert figures["recall_2"] == pytest.approx((1 / 3 + 0) / 2)
    assert figures["hit_rate_2"] == pytest.approx(1 / 2)


def test_ndcg_has_an_ideal_capped_at_k() -> None:
    figures = metrics.ranking(lists(c1=[5, 6]), lists(c1=[6, 7, 8]), at=(2,))
    assert figures["ndcg_2"] == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))


def test_a_customer_without_a_list_counts_as_missed() -> None:
    assert metrics.ranking(lists(c1=[5]), lists(c1=[5], c2=[5]), at=(1,))["recall_1"] == pytest.approx(0.5)


def test_the_same_list_for_everyone_shows() -> None:
    assert metrics.variety(lists(c1=[1, 2], c2=[1, 2], c3=[2, 1]))["distinct_lists"] == pytest.approx(1 / 3)


def test_probabilities_are_judged_by_their_logarithm_and_their_calibration() -> None:
    happened, p = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.5, 0.25, 0.25, 0.25])
    figures = metrics.probability(happened, p)
    assert figures["log_loss"] == pytest.approx(-(np.log(0.5) + 3 * np.log(0.75)) / 4)
    assert figures["brier"] == pytest.approx((0.25 + 3 * 0.0625) / 4)
    assert figures["auc"] == 1
    assert metrics.calibration_error(happened, p, bins=1) == pytest.approx(abs(1.25 / 4 - 1 / 4))


def test_lift_is_the_rate_at_the_top_over_the_rate_of_all() -> None:
    happened = np.array([1.0] + [0.0] * 9)
    assert metrics.lift(happened, np.arange(10, 0, -1) / 10) == pytest.approx(10)


def test_waiting_times_are_judged_day_by_day() -> None:
    survival = np.array([[0.5, 0.25], [0.5, 0.25]])
    figures = metrics.waiting(np.array([1.0, 2.0]), np.array([True, False]), survival, until=2)
    assert figures["crps"] == pytest.approx(((0.5**2 + 0.25**2) + (0.5**2 + 0.75**2)) / 2)
    assert figures["nll"] == pytest.approx(-(np.log(0.5) + np.log(0.25)) / 2)


def test_concordance_is_the_share_of_pairs_in_order() -> None:
    waited, seen = np.array([1.0, 2.0, 3.0]), np.array([True, True, False])
    assert metrics.concordance(waited, seen, np.array([1.0, 3.0, 2.0])) == pytest.approx(2 / 3)


def test_an_honest_curve_covers_what_it_says() -> None:
    generator = np.random.default_rng(7)
    survival = np.tile(0.9 ** np.arange(1, 61), (20_000, 1))
    waited = generator.geometric(0.1, size=20_000).astype(float)
    figures = metrics.waiting(np.minimum(waited, 60), waited <= 60, survival, until=60)
    assert figures["coverage_80"] == pytest.approx(0.8, abs=0.01)


def test_losses_are_better_when_smaller() -> None:
    assert metrics.better("crps")(1, 2)
    assert metrics.better("ndcg_10")(2, 1)
