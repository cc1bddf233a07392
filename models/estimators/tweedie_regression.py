"""Tweedie regression with a log link, by Newton's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from models.base import Floats

#: Tweedie's variance power, between Poisson (1) and gamma (2): many zeros, and widely varying positive amounts.
POWER = 1.4
#: Ridge penalty; many rows come from the same customers.
RIDGE = 1_000.0
#: Standardised features are clipped to this, so that no prediction extrapolates.
MAX_STANDARD_SCORE = 4.0
MAX_STEPS, STEP_TOLERANCE, MAX_STEP = 15, 1e-3, 1.0


@dataclass(frozen=True)
class TweedieRegression:
    """Ridge Tweedie regression with a logarithmic link (Jorgensen 1987).

    Features are transformed by a signed logarithm and standardised; a missing value is imputed by the mean.
    """

    centre: Floats
    width: Floats
    weights: Floats
    level: float

    @classmethod
    def fit(cls, design: Floats, outcome: Floats, init_score: Floats, *, ridge: float = RIDGE) -> Self:
        """Fit on features (n, columns), amounts (n,) and offsets on the log scale (n,)."""
        logs = _signed_log(design)
        counts = np.maximum(np.isfinite(logs).sum(axis=0), 1)
        centre = np.nansum(logs, axis=0) / counts
        spread = np.sqrt(np.nansum((logs - centre) ** 2, axis=0) / counts)
        width = np.where(spread > 1e-9, spread, 1.0)
        level = float(np.log(max(outcome.sum(), 1e-9) / np.exp(init_score).sum()))
        weights = _fit_weights(_standardised(logs, centre, width), outcome, init_score + level, ridge)
        return cls(centre, width, weights[1:], level + float(weights[0]))

    def linear_predictor(self, design: Floats) -> Floats:
        """The logarithm of each row's amount without its offset: array (n,)."""
        logs: Floats = self.level + self._terms(design) @ self.weights
        return logs

    def contributions(self, design: Floats) -> Floats:
        """The effect of each column on each row, on the log scale, against the mean: array (n, columns)."""
        parts: Floats = self._terms(design) * self.weights
        return parts

    def to_dict(self) -> dict[str, Any]:
        """All parameters as JSON values."""
        parts = {"centre": self.centre, "width": self.width, "weights": self.weights}
        return {name: part.tolist() for name, part in parts.items()} | {"level": self.level}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read what `to_dict` returned."""
        centre, width, weights = (np.array(content[name]) for name in ("centre", "width", "weights"))
        return cls(centre, width, weights, content["level"])

    def _terms(self, design: Floats) -> Floats:
        return _standardised(_signed_log(design), self.centre, self.width)


def _signed_log(design: Floats) -> Floats:
    logs: Floats = np.sign(design) * np.log1p(np.abs(design))
    return logs


def _standardised(logs: Floats, centre: Floats, width: Floats) -> Floats:
    return np.nan_to_num(np.clip((logs - centre) / width, -MAX_STANDARD_SCORE, MAX_STANDARD_SCORE))


def _fit_weights(terms: Floats, outcome: Floats, offset: Floats, ridge: float) -> Floats:
    """The intercept, which is not penalised, then one weight per column."""
    design = np.column_stack([np.ones(len(terms)), terms])
    penalty = ridge * np.array([0.0] + [1.0] * terms.shape[1])
    weights = np.zeros(design.shape[1])
    scale = max(float(outcome.mean()), 1e-9) ** (2 - POWER)  # makes the ridge independent of the currency
    for _ in range(MAX_STEPS):
        amount = np.exp(np.clip(offset + design @ weights, -15.0, 20.0))
        gradient = design.T @ ((outcome - amount) * amount ** (1 - POWER)) / scale - penalty * weights
        hessian = (design.T * (amount ** (2 - POWER) / scale)) @ design + np.diag(penalty)
        step = np.linalg.solve(hessian + 1e-9 * np.eye(len(weights)), gradient)
        weights = weights + np.clip(step, -MAX_STEP, MAX_STEP)
        if np.abs(step).max() < STEP_TOLERANCE:
            break
    return weights
