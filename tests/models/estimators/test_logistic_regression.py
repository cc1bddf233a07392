"""Logistic regression, on customers whose odds were drawn from known weights."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from models.estimators import logistic_regression
from models.estimators.logistic_regression import LogisticRegression, signed_log


def customers(rows: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three features with weights 1, -0.5 and 0; a tenth of the third is missing."""
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(rows, 3))
    outcome = (rng.random(rows) < expit(0.3 + design[:, 0] - 0.5 * design[:, 1])).astype(float)
    design[rng.random(rows) < 0.1, 2] = np.nan
    return design, outcome


def test_the_weights_are_recovered() -> None:
    design, outcome = customers(60_000)
    model = LogisticRegression.fit(design, outcome, np.zeros(len(outcome)), ridge=1.0)
    assert model.weights[:3] / model.width == pytest.approx([1.0, -0.5, 0.0], abs=0.04)
    assert model.linear_predictor(np.zeros((1, 3)))[0] == pytest.approx(0.3, abs=0.04)


def test_with_few_customers_and_a_strong_ridge_only_the_first_feature_remains() -> None:
    design, outcome = customers(400)
    model = LogisticRegression.fit(design, outcome, np.zeros(400), ridge=1e6)
    assert model.weights[0] == pytest.approx(1.0, abs=0.35)
    assert model.weights[1:] == pytest.approx(np.zeros(5), abs=1e-3)


def test_what_an_offset_explains_is_not_learned_again() -> None:
    design, outcome = customers(30_000)
    offset = 0.3 + design[:, 0] - 0.5 * design[:, 1]
    assert LogisticRegression.fit(design, outcome, offset).weights == pytest.approx(np.zeros(6), abs=0.05)


def test_contributions_add_up_and_a_missing_feature_counts_as_the_average() -> None:
    design, outcome = customers(2000)
    model = LogisticRegression.fit(design, outcome, np.zeros(2000))
    parts = model.contributions(design)
    assert parts.shape == (2000, 3)
    assert model.offset + parts.sum(axis=1) == pytest.approx(model.linear_predictor(design))
    blank = np.full((1, 3), np.nan)
    assert np.isfinite(model.linear_predictor(blank)).all()
    assert model.with_shift(2.0).linear_predictor(design) == pytest.approx(model.linear_predictor(design) + 2)


def test_constant_features_and_extreme_values_do_no_harm() -> None:
    design, outcome = customers(500)
    design = np.column_stack([design, np.full(500, 7.0), np.full(500, np.nan)])
    model = LogisticRegression.fit(design, outcome, np.zeros(500))
    extreme = np.column_stack([np.full((2, 3), 1e9), [[-4.0], [9.0]], [[1.0], [np.nan]]])
    assert np.isfinite(model.linear_predictor(extreme)).all()
    assert (
        LogisticRegression.from_dict(model.to_dict()).linear_predictor(extreme) == model.linear_predictor(extreme)
    ).all()


def test_signed_logarithms_keep_the_sign() -> None:
    assert signed_log(np.array([-1.0, 0.0, np.e - 1])).tolist() == pytest.approx([-np.log(2), 0.0, 1.0])


def test_a_step_that_overshoots_is_halved(monkeypatch):
    """From log odds of 3 to those of 0, Newton's first step ends at -6.5, and the next one would be of 300."""
    monkeypatch.setattr(logistic_regression, "MAX_STEP", np.inf)
    outcome = np.tile([0.0, 1.0], 200)
    fitted = LogisticRegression.fit(np.zeros((400, 1)), outcome, np.full(400, 3.0))
    assert fitted.offset == pytest.approx(-3.0, abs=1e-4)
