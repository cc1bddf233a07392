"""Logistic regression by Newton's method, with a ridge penalty and offsets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.special import expit

from models.base import Floats

#: Ridge penalty. Rows are many, but they come from far fewer customers.
RIDGE = 300.0
#: Standardised features are clipped to this, so that no prediction extrapolates.
MAX_STANDARD_SCORE = 5.0
MAX_STEPS, STEP_TOLERANCE, MAX_STEP, MAX_HALVINGS = 20, 1e-4, 3.0, 30


def signed_log(design: Floats) -> Floats:
    """sign(x) log(1 + |x|) of each value, (n, columns): puts money, days and shares on a comparable scale."""
    scaled: Floats = np.sign(design) * np.log1p(np.abs(design))
    return scaled


@dataclass(frozen=True)
class LogisticRegression:
    """Ridge logistic regression with an offset; a missing value is imputed by the mean and has an indicator of its own.

    The first column is exempt from the ridge penalty, so that with few rows the model reduces to it.
    """

    centre: Floats
    width: Floats
    unknown: Floats  # (columns,): the share of rows in which each column was missing
    weights: Floats  # (2 * columns,): of the columns, then of their missing-value indicators
    offset: float

    @classmethod
    def fit(cls, design: Floats, outcome: Floats, init_score: Floats, *, ridge: float = RIDGE) -> Self:
        """Fit on features (n, columns), outcomes 0 or 1 (n,) and offsets in log odds (n,)."""
        is_observed = np.isfinite(design)
        count = np.maximum(is_observed.sum(axis=0), 1)
        centre = np.where(is_observed, design, 0.0).sum(axis=0) / count
        spread = np.sqrt((np.where(is_observed, design - centre, 0.0) ** 2).sum(axis=0) / count)
        unfitted = cls(centre, np.where(spread > 1e-6, spread, np.inf), 1 - is_observed.mean(axis=0), np.empty(0), 0.0)
        weights = _fit_offset_weights(unfitted._terms(design), outcome, init_score, ridge)
        return cls(unfitted.centre, unfitted.width, unfitted.unknown, weights[1:], float(weights[0]))

    def linear_predictor(self, design: Floats) -> Floats:
        """Log odds of each row without its offset: array (n,)."""
        odds: Floats = self.offset + self._terms(design) @ self.weights
        return odds

    def with_shift(self, shift: float) -> Self:
        """The same regression with `shift` added to the intercept."""
        return type(self)(self.centre, self.width, self.unknown, self.weights, self.offset + shift)

    def contributions(self, design: Floats) -> Floats:
        """The effect of each column on each row, in log odds, against the mean: array (n, columns)."""
        parts = self._terms(design) * self.weights
        columns = design.shape[1]
        return np.asarray(parts[:, :columns] + parts[:, columns:], dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """All parameters as JSON values; the width of a constant column is None."""
        parts = {name: getattr(self, name).tolist() for name in ("centre", "unknown", "weights")}
        width = [None if np.isinf(value) else float(value) for value in self.width]
        return parts | {"width": width, "offset": self.offset}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read what `to_dict` returned."""
        centre, unknown, weights = (np.array(content[name]) for name in ("centre", "unknown", "weights"))
        width = np.array([np.inf if value is None else value for value in content["width"]])
        return cls(centre, width, unknown, weights, content["offset"])

    def _terms(self, design: Floats) -> Floats:
        is_observed = np.isfinite(design)
        scaled = np.clip(
            np.where(is_observed, design - self.centre, 0.0) / self.width, -MAX_STANDARD_SCORE, MAX_STANDARD_SCORE
        )
        spread = np.sqrt(self.unknown * (1 - self.unknown))
        missing = np.where(spread > 1e-6, (~is_observed - self.unknown) / np.maximum(spread, 1e-6), 0.0)
        return np.hstack([scaled, missing])


def _fit_offset_weights(terms: Floats, outcome: Floats, init_score: Floats, ridge: float) -> Floats:
    """The intercept and the first weight, both without ridge penalty, then the penalised weights."""
    varying = np.flatnonzero(np.abs(terms).max(axis=0, initial=0.0) > 0)
    design = np.column_stack([np.ones(len(terms)), terms[:, varying]])
    penalty = ridge * np.concatenate([[0.0], np.where(varying == 0, 0.0, 1.0)])
    weights = np.zeros(design.shape[1])
    for _ in range(MAX_STEPS):
        probability = expit(init_score + design @ weights)
        gradient = design.T @ (outcome - probability) - penalty * weights
        hessian = (design.T * (probability * (1 - probability))) @ design + np.diag(penalty + 1e-6)
        step = _improving_step(np.linalg.solve(hessian, gradient), weights, design, outcome, init_score, penalty)
        weights = weights + step
        if np.abs(step).max() < STEP_TOLERANCE:
            break
    all_weights = np.zeros(1 + terms.shape[1])
    all_weights[np.concatenate([[0], 1 + varying])] = weights
    return all_weights


def _improving_step(
    step: Floats, weights: Floats, design: Floats, outcome: Floats, init_score: Floats, penalty: Floats
) -> Floats:
    """Newton's step, clipped; where that lowers the likelihood, the step in its own direction, halved until it rises.

    Full steps overshoot where nearly all outcomes are equal: the next ones are then larger still, and never return.
    """

    def log_likelihood(candidate: Floats) -> float:
        odds = init_score + design @ candidate
        return float(outcome @ odds - np.logaddexp(0, odds).sum() - 0.5 * penalty @ candidate**2)

    present = log_likelihood(weights)
    clipped = np.clip(step, -MAX_STEP, MAX_STEP)
    if log_likelihood(weights + clipped) >= present - STEP_TOLERANCE:
        return clipped
    shorter = step * min(1.0, MAX_STEP / np.abs(step).max())
    for _ in range(MAX_HALVINGS):
        if log_likelihood(weights + shorter) >= present:
            break
        shorter = shorter / 2
    return shorter


def fit_weights(terms: Floats, label: Floats, *, ridge: float = 1.0) -> Floats:
    """Ridge logistic regression of label (n,) on terms (n, columns): the unpenalised intercept, then the weights."""
    design = np.column_stack([np.ones(len(terms)), terms])
    penalty = ridge * np.diag([0.0] + [1.0] * terms.shape[1])
    weights = np.zeros(design.shape[1])
    for _ in range(25):
        probability = expit(design @ weights)
        gradient = design.T @ (label - probability) - penalty @ weights
        hessian = design.T @ (design * (probability * (1 - probability))[:, None]) + penalty
        step = np.linalg.solve(hessian + 1e-9 * np.eye(len(weights)), gradient)
        weights = weights + np.clip(step, -3, 3)
        if np.abs(step).max() < 1e-9:
            break
    return weights
