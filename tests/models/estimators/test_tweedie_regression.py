"""The straight rule, on amounts that double with every unit of one feature."""

from __future__ import annotations

import numpy as np
import pytest

from models.estimators.tweedie_regression import TweedieRegression


def amounts(rows: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chance = np.random.default_rng(2)
    design = np.column_stack([np.expm1(chance.uniform(0, 2, rows)), chance.random(rows), np.ones(rows)])
    truth = np.exp(1.0 + 0.7 * np.log1p(design[:, 0]))
    return design, truth, chance.poisson(truth / 5) * 5.0


def test_it_finds_the_weight_and_ignores_what_says_nothing() -> None:
    design, truth, seen = amounts()
    found = TweedieRegression.fit(design, seen, np.zeros(len(seen)), ridge=1.0)
    np.testing.assert_allclose(np.exp(found.linear_predictor(design)), truth, rtol=0.2)
    assert found.weights[0] / found.width[0] == pytest.approx(0.7, abs=0.05)
    assert abs(found.weights[1]) < 0.05
    assert found.weights[2] == pytest.approx(0)


def test_twice_the_days_are_twice_the_amount() -> None:
    design, truth, seen = amounts()
    days = np.where(np.arange(len(seen)) % 2, 10.0, 20.0)
    found = TweedieRegression.fit(design, seen * days, np.log(days), ridge=1.0)
    np.testing.assert_allclose(np.exp(found.linear_predictor(design)), truth, rtol=0.2)


def test_the_currency_does_not_matter() -> None:
    design, _, seen = amounts(1000)
    cents, euros = (TweedieRegression.fit(design, seen * unit, np.zeros(len(seen))) for unit in (100.0, 1.0))
    np.testing.assert_allclose(cents.linear_predictor(design) - np.log(100), euros.linear_predictor(design), atol=1e-3)


def test_the_unknown_counts_as_the_usual_and_the_unheard_of_as_the_farthest_seen() -> None:
    design, _, seen = amounts(1000)
    found = TweedieRegression.fit(design, seen, np.zeros(len(seen)))
    strange = np.array([[np.nan, np.nan, np.nan], [1e12, 0.5, 1.0]])
    assert found.linear_predictor(strange)[0] == pytest.approx(found.level)
    assert np.isfinite(found.linear_predictor(strange)).all()
    np.testing.assert_allclose(found.contributions(design).sum(axis=1) + found.level, found.linear_predictor(design))
    again = TweedieRegression.from_dict(found.to_dict())
    np.testing.assert_array_equal(again.linear_predictor(design), found.linear_predictor(design))
