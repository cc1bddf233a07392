"""Leanings, on customers whose odds were drawn from known weights."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from models.estimators.logistic_regression import LogisticRegression, signed_log


def customers(rows: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three figures, of which the first weighs 1, the second -0.5 and the third nothing; a tenth of it is unknown."""
    chance = np.random.default_rng(seed)
    design = chance.normal(size=(rows, 3))
    outcome = (chance.random(rows) < expit(0.3 + design[:, 0] - 0.5 * design[:, 1])).astype(float)
    design[chance.random(rows) < 0.1, 2] = np.nan
    return design, outcome


def test_the_weights_are_found() -> None:
    design, outcome = customers(60_000)
    found = LogisticRegression.fit(design, outcome, np.zeros(len(outcome)), ridge=1.0)
    assert found.weights[:3] / found.width == pytest.approx([1.0, -0.5, 0.0], abs=0.04)
    assert found.linear_predictor(np.zeros((1, 3)))[0] == pytest.approx(0.3, abs=0.04)


def test_with_few_customers_the_first_figure_is_what_remains() -> None:
    design, outcome = customers(400)
    found = LogisticRegression.fit(design, outcome, np.zeros(400), ridge=1e6)
    assert found.weights[0] == pytest.approx(1.0, abs=0.35)
    assert found.weights[1:] == pytest.approx(np.zeros(5), abs=1e-3)


def test_what_a_row_starts_from_is_not_learned_again() -> None:
    design, outcome = customers(30_000)
    start = 0.3 + design[:, 0] - 0.5 * design[:, 1]
    assert LogisticRegression.fit(design, outcome, start).weights == pytest.approx(np.zeros(6), abs=0.05)


def test_contributions_add_up_and_an_unknown_figure_counts_as_the_usual() -> None:
    design, outcome = customers(2000)
    found = LogisticRegression.fit(design, outcome, np.zeros(2000))
    parts = found.contributions(design)
    assert parts.shape == (2000, 3)
    assert found.offset + parts.sum(axis=1) == pytest.approx(found.linear_predictor(design))
    blank = np.full((1, 3), np.nan)
    assert np.isfinite(found.linear_predictor(blank)).all()
    assert found.with_shift(2.0).linear_predictor(design) == pytest.approx(found.linear_predictor(design) + 2)


def test_figures_that_never_differ_and_wild_ones_do_no_harm() -> None:
    design, outcome = customers(500)
    design = np.column_stack([design, np.full(500, 7.0), np.full(500, np.nan)])
    found = LogisticRegression.fit(design, outcome, np.zeros(500))
    wild = np.column_stack([np.full((2, 3), 1e9), [[-4.0], [9.0]], [[1.0], [np.nan]]])
    assert np.isfinite(found.linear_predictor(wild)).all()
    assert (LogisticRegression.from_dict(found.to_dict()).linear_predictor(wild) == found.linear_predictor(wild)).all()


def test_logarithms_keep_the_sign() -> None:
    assert signed_log(np.array([-1.0, 0.0, np.e - 1])).tolist() == pytest.approx([-np.log(2), 0.0, 1.0])
