"""Reliability and gains curves, on few enough customers to count by hand."""

import numpy as np
import pytest

from training.evaluation import calibration_curves


def test_a_reliability_curve_compares_predictions_and_outcomes_in_order_of_prediction() -> None:
    predicted, observed = np.array([0.9, 0.1, 0.2, 0.8]), np.array([1.0, 0.0, 1.0, 1.0])
    curve = calibration_curves.reliability_curve(predicted, observed, bins=2)
    assert curve["predicted"].tolist() == pytest.approx([0.15, 0.85])
    assert curve["observed"].tolist() == [0.5, 1.0]
    assert curve["customers"].tolist() == [2, 2]


def test_fewer_customers_than_bins_still_give_curves() -> None:
    assert len(calibration_curves.reliability_curve(np.array([0.5]), np.array([1.0]))) == 1
    assert calibration_curves.gains_curve(np.array([0.5]), np.array([0.0]))["held"].tolist() == [0.0] * (
        calibration_curves.GAINS_STEPS + 1
    )


def test_the_first_customers_of_a_good_ranking_hold_most_of_the_outcome() -> None:
    predicted, observed = np.array([4.0, 3.0, 2.0, 1.0]), np.array([6.0, 2.0, 0.0, 0.0])
    gains = calibration_curves.gains_curve(predicted, observed, steps=4)
    assert gains["share"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert gains["held"].tolist() == [0, 0.75, 1, 1, 1]
    random_gains = calibration_curves.gains_curve(np.ones(1000), np.ones(1000), steps=4)
    assert random_gains["held"].tolist() == pytest.approx(random_gains["share"].tolist())
