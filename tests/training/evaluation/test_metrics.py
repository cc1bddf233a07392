"""Metrics, each against arithmetic done by hand."""

import numpy as np
import pytest

from training.evaluation import metrics


def test_probabilities_are_evaluated_by_log_loss_and_calibration() -> None:
    happened, p = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.5, 0.25, 0.25, 0.25])
    scores = metrics.probability_metrics(happened, p)
    assert scores["log_loss"] == pytest.approx(-(np.log(0.5) + 3 * np.log(0.75)) / 4)
    assert scores["brier"] == pytest.approx((0.25 + 3 * 0.0625) / 4)
    assert scores["auc"] == 1
    assert metrics.calibration_error(happened, p, bins=1) == pytest.approx(abs(1.25 / 4 - 1 / 4))


def test_lift_is_the_rate_at_the_top_over_the_rate_of_all() -> None:
    happened = np.array([1.0] + [0.0] * 9)
    assert metrics.lift(happened, np.arange(10, 0, -1) / 10) == pytest.approx(10)


def test_survival_curves_are_evaluated_day_by_day() -> None:
    survival = np.array([[0.5, 0.25], [0.5, 0.25]])
    scores = metrics.survival_metrics(np.array([1.0, 2.0]), np.array([True, False]), survival, follow_up_days=2)
    assert scores["crps"] == pytest.approx(((0.5**2 + 0.25**2) + (0.5**2 + 0.75**2)) / 2)
    assert scores["nll"] == pytest.approx(-(np.log(0.5) + np.log(0.25)) / 2)


def test_concordance_is_the_share_of_pairs_in_order() -> None:
    durations, observed = np.array([1.0, 2.0, 3.0]), np.array([True, True, False])
    assert metrics.concordance(durations, observed, np.array([1.0, 3.0, 2.0])) == pytest.approx(2 / 3)


def test_the_intervals_of_a_calibrated_curve_have_the_nominal_coverage() -> None:
    rng = np.random.default_rng(7)
    survival = np.tile(0.9 ** np.arange(1, 61), (20_000, 1))
    durations = rng.geometric(0.1, size=20_000).astype(float)
    scores = metrics.survival_metrics(np.minimum(durations, 60), durations <= 60, survival, follow_up_days=60)
    assert scores["coverage_80"] == pytest.approx(0.8, abs=0.01)


def test_losses_are_better_when_smaller_and_other_metrics_when_larger() -> None:
    assert metrics.comparator("crps")(1, 2)
    assert metrics.comparator("ndcg_10")(2, 1)


def test_value_predictions_are_evaluated_by_order_level_and_error() -> None:
    spent, expected = np.array([0.0, 10.0, 30.0]), np.array([5.0, 20.0, 15.0])
    scores = metrics.value_metrics(spent, expected)
    assert scores["mae"] == pytest.approx((5 + 10 + 15) / 3)
    assert scores["bias"] == pytest.approx((5 + 20 + 15) / 40 - 1)
    # Best order 30, 10, 0: shares 3/4, 1, 1. Predicted order 10, 30, 0: shares 1/4, 1, 1. Area of each, less 1/2.
    best, predicted = (np.mean([(0 + a) / 2, (a + 1) / 2, 1]) - 0.5 for a in (3 / 4, 1 / 4))
    assert scores["ngini"] == pytest.approx(predicted / best)


def test_the_right_order_has_a_gini_of_one_and_a_constant_prediction_zero() -> None:
    spent = np.array([0.0, 3.0, 1.0, 9.0])
    assert metrics.normalised_gini(spent, spent * 2 + 1) == pytest.approx(1)
    assert metrics.normalised_gini(spent, np.ones(4)) == pytest.approx(0)
    assert metrics.normalised_gini(spent, -spent) == pytest.approx(-1)
    assert np.isnan(metrics.normalised_gini(np.zeros(4), spent))


def test_the_decile_error_is_the_mean_error_of_groups_in_order_of_prediction() -> None:
    spent, expected = np.array([0.0, 2.0, 10.0, 30.0]), np.array([1.0, 1.0, 12.0, 18.0])
    assert metrics.decile_error(spent, expected, bins=2) == pytest.approx((0 / 1 + (20 - 15) / 20) / 2)
    # A group that spent nothing is measured against 2 % of the mean.
    error_without_spend = metrics.decile_error(np.array([0.0, 10.0]), np.array([1.0, 10.0]), bins=2)
    assert error_without_spend == pytest.approx((1 / (0.02 * 5) + 0) / 2)


def test_curves_that_differ_in_level_only_have_the_same_recalibrated_crps() -> None:
    rng = np.random.default_rng(4)
    rate = rng.uniform(0.01, 0.2, 400)
    durations = np.ceil(rng.exponential(1 / rate))
    true_curves = np.exp(-rate[:, None] * np.arange(1, 61))
    scores = [
        metrics.survival_metrics(durations, durations <= 60, true_curves**power, 60, level_day=28)
        for power in (1.0, 0.5)
    ]
    assert scores[0]["crps_levelled"] == pytest.approx(scores[1]["crps_levelled"], rel=1e-6)
    assert scores[0]["crps"] < scores[1]["crps"]
    assert scores[0]["crps_levelled"] == pytest.approx(scores[0]["crps"], rel=0.01), "it had the right level"
    all_bought = metrics.survival_metrics(np.full(9, 3.0), np.ones(9, bool), np.full((9, 60), 0.5), 60)
    assert np.isfinite(all_bought["crps_levelled"]), "also where all of them bought"
