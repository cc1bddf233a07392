"""Tweedie regression, on amounts that double with every unit of the logarithm of one feature."""

from __future__ import annotations

import numpy as np
import pytest

from models.estimators.tweedie_regression import TweedieRegression


def amounts(rows: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    design = np.column_stack([np.expm1(rng.uniform(0, 2, rows)), rng.random(rows), np.ones(rows)])
    truth = np.exp(1.0 + 0.7 * np.log1p(design[:, 0]))
    return design, truth, rng.poisson(truth / 5) * 5.0


def test_the_weight_is_recovered_and_features_without_signal_are_ignored() -> None:
    design, truth, spent = amounts()
    model = TweedieRegression.fit(design, spent, np.zeros(len(spent)), ridge=1.0)
    np.testing.assert_allclose(np.exp(model.linear_predictor(design)), truth, rtol=0.2)
    assert model.weights[0] / model.width[0] == pytest.approx(0.7, abs=0.05)
    assert abs(model.weights[1]) < 0.05
    assert model.weights[2] == pytest.approx(0)


def test_twice_the_days_are_twice_the_amount() -> None:
    design, truth, spent = amounts()
    days = np.where(np.arange(len(spent)) % 2, 10.0, 20.0)
    model = TweedieRegression.fit(design, spent * days, np.log(days), ridge=1.0)
    np.testing.assert_allclose(np.exp(model.linear_predictor(design)), truth, rtol=0.2)


def test_the_currency_does_not_matter() -> None:
    design, _, spent = amounts(1000)
    cents, euros = (TweedieRegression.fit(design, spent * unit, np.zeros(len(spent))) for unit in (100.0, 1.0))
    np.testing.assert_allclose(cents.linear_predictor(design) - np.log(100), euros.linear_predictor(design), atol=1e-3)


def test_a_missing_value_counts_as_the_average_and_an_extreme_one_is_clipped() -> None:
    design, _, spent = amounts(1000)
    model = TweedieRegression.fit(design, spent, np.zeros(len(spent)))
    unusual = np.array([[np.nan, np.nan, np.nan], [1e12, 0.5, 1.0]])
    assert model.linear_predictor(unusual)[0] == pytest.approx(model.level)
    assert np.isfinite(model.linear_predictor(unusual)).all()
    np.testing.assert_allclose(model.contributions(design).sum(axis=1) + model.level, model.linear_predictor(design))
    loaded = TweedieRegression.from_dict(model.to_dict())
    np.testing.assert_array_equal(loaded.linear_predictor(design), model.linear_predictor(design))
