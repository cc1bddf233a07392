"""Curves on few enough customers to count by hand."""

import numpy as np
import pytest

from training.evaluation import calibration_curves


def test_what_is_said_is_set_against_what_is_seen_in_order_of_what_was_said() -> None:
    said, seen = np.array([0.9, 0.1, 0.2, 0.8]), np.array([1.0, 0.0, 1.0, 1.0])
    found = calibration_curves.reliability_curve(said, seen, bins=2)
    assert found["said"].tolist() == pytest.approx([0.15, 0.85])
    assert found["seen"].tolist() == [0.5, 1.0]
    assert found["customers"].tolist() == [2, 2]


def test_fewer_customers_than_tenths_are_no_trouble() -> None:
    assert len(calibration_curves.reliability_curve(np.array([0.5]), np.array([1.0]))) == 1
    assert calibration_curves.gains_curve(np.array([0.5]), np.array([0.0]))["held"].tolist() == [0.0] * (
        calibration_curves.GAINS_STEPS + 1
    )


def test_the_first_of_a_good_list_hold_most_of_what_comes() -> None:
    said, seen = np.array([4.0, 3.0, 2.0, 1.0]), np.array([6.0, 2.0, 0.0, 0.0])
    held = calibration_curves.gains_curve(said, seen, steps=4)
    assert held["share"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert held["held"].tolist() == [0, 0.75, 1, 1, 1]
    blind = calibration_curves.gains_curve(np.ones(1000), np.ones(1000), steps=4)
    assert blind["held"].tolist() == pytest.approx(blind["share"].tolist())
