"""Metrics, each against arithmetic done by hand."""

import numpy as np
import pytest

from training.evaluation import metrics


def test_probabilities_are_judged_by_their_logarithm_and_their_calibration() -> None:
    happened, p = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.5, 0.25, 0.25, 0.25])
    figures = metrics.probability_metrics(happened, p)
    assert figures["log_loss"] == pytest.approx(-(np.log(0.5) + 3 * np.log(0.75)) / 4)
    assert figures["brier"] == pytest.approx((0.25 + 3 * 0.0625) / 4)
    assert figures["auc"] == 1
    assert metrics.calibration_error(happened, p, bins=1) == pytest.approx(abs(1.25 / 4 - 1 / 4))


def test_lift_is_the_rate_at_the_top_over_the_rate_of_all() -> None:
    happened = np.array([1.0] + [0.0] * 9)
    assert metrics.lift(happened, np.arange(10, 0, -1) / 10) == pytest.approx(10)


def test_waiting_times_are_judged_day_by_day() -> None:
    survival = np.array([[0.5, 0.25], [0.5, 0.25]])
    figures = metrics.survival_metrics(np.array([1.0, 2.0]), np.array([True, False]), survival, follow_up_days=2)
    assert figures["crps"] == pytest.approx(((0.5**2 + 0.25**2) + (0.5**2 + 0.75**2)) / 2)
    assert figures["nll"] == pytest.approx(-(np.log(0.5) + np.log(0.25)) / 2)


def test_concordance_is_the_share_of_pairs_in_order() -> None:
    waited, seen = np.array([1.0, 2.0, 3.0]), np.array([True, True, False])
    assert metrics.concordance(waited, seen, np.array([1.0, 3.0, 2.0])) == pytest.approx(2 / 3)


def test_an_honest_curve_covers_what_it_says() -> None:
    generator = np.random.default_rng(7)
    survival = np.tile(0.9 ** np.arange(1, 61), (20_000, 1))
    waited = generator.geometric(0.1, size=20_000).astype(float)
    figures = metrics.survival_metrics(np.minimum(waited, 60), waited <= 60, survival, follow_up_days=60)
    assert figures["coverage_80"] == pytest.approx(0.8, abs=0.01)


def test_losses_are_better_when_smaller() -> None:
    assert metrics.comparator("crps")(1, 2)
    assert metrics.comparator("ndcg_10")(2, 1)


def test_money_is_judged_by_its_order_its_level_and_its_error() -> None:
    spent, expected = np.array([0.0, 10.0, 30.0]), np.array([5.0, 20.0, 15.0])
    figures = metrics.value_metrics(spent, expected)
    assert figures["mae"] == pytest.approx((5 + 10 + 15) / 3)
    assert figures["bias"] == pytest.approx((5 + 20 + 15) / 40 - 1)
    # Best order 30, 10, 0: shares 3/4, 1, 1. Theirs 10, 30, 0: shares 1/4, 1, 1. Area under each, less the half.
    best, theirs = (np.mean([(0 + a) / 2, (a + 1) / 2, 1]) - 0.5 for a in (3 / 4, 1 / 4))
    assert figures["ngini"] == pytest.approx(theirs / best)


def test_the_right_order_has_all_of_the_gini_and_the_same_answer_for_all_none() -> None:
    spent = np.array([0.0, 3.0, 1.0, 9.0])
    assert metrics.normalised_gini(spent, spent * 2 + 1) == pytest.approx(1)
    assert metrics.normalised_gini(spent, np.ones(4)) == pytest.approx(0)
    assert metrics.normalised_gini(spent, -spent) == pytest.approx(-1)
    assert np.isnan(metrics.normalised_gini(np.zeros(4), spent))


def test_the_decile_error_is_the_mean_gap_of_groups_in_order_of_what_was_said() -> None:
    spent, expected = np.array([0.0, 2.0, 10.0, 30.0]), np.array([1.0, 1.0, 12.0, 18.0])
    assert metrics.decile_error(spent, expected, bins=2) == pytest.approx((0 / 1 + (20 - 15) / 20) / 2)
    # A group that spent nothing is measured against 2 % of the mean.
    nothing = metrics.decile_error(np.array([0.0, 10.0]), np.array([1.0, 10.0]), bins=2)
    assert nothing == pytest.approx((1 / (0.02 * 5) + 0) / 2)


def test_curves_that_differ_in_level_alone_are_as_good_as_each_other_once_levelled() -> None:
    chance = np.random.default_rng(4)
    rate = chance.uniform(0.01, 0.2, 400)
    waited = np.ceil(chance.exponential(1 / rate))
    right = np.exp(-rate[:, None] * np.arange(1, 61))
    figures = [metrics.survival_metrics(waited, waited <= 60, right**power, 60, level_day=28) for power in (1.0, 0.5)]
    assert figures[0]["crps_levelled"] == pytest.approx(figures[1]["crps_levelled"], rel=1e-6)
    assert figures[0]["crps"] < figures[1]["crps"]
    assert figures[0]["crps_levelled"] == pytest.approx(figures[0]["crps"], rel=0.01), "it had the right level"
    everybody = metrics.survival_metrics(np.full(9, 3.0), np.ones(9, bool), np.full((9, 60), 0.5), 60)
    assert np.isfinite(everybody["crps_levelled"]), "also where all of them came"
