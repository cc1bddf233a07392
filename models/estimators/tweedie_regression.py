"""Straight: each feature counts in proportion, upwards or downwards, on a scale of logarithms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from models.base import Floats

#: Tweedie's power: between counting (1) and amounts (2), as where many spend nothing and the rest very differently.
POWER = 1.4
#: How much the weights lean on nothing; many rows are of the same customers.
RIDGE = 1_000.0
#: A figure counts as this many widths from the usual at most: nobody is foretold from beyond what was seen.
MAX_STANDARD_SCORE = 4.0
MAX_STEPS, STEP_TOLERANCE, MAX_STEP = 15, 1e-3, 1.0


@dataclass(frozen=True)
class TweedieRegression:
    """A Tweedie regression with a logarithmic link (Jorgensen 1987), by Newton's method.

    Features are read as logarithms, centred and scaled; an unknown one counts as the usual.
    """

    centre: Floats
    width: Floats
    weights: Floats
    level: float

    @classmethod
    def fit(cls, design: Floats, outcome: Floats, init_score: Floats, *, ridge: float = RIDGE) -> Self:
        """Learn from rows of features (n, columns), amounts (n,) and the logarithms they start from (n,)."""
        logs = _signed_log(design)
        counts = np.maximum(np.isfinite(logs).sum(axis=0), 1)
        centre = np.nansum(logs, axis=0) / counts
        spread = np.sqrt(np.nansum((logs - centre) ** 2, axis=0) / counts)
        width = np.where(spread > 1e-9, spread, 1.0)
        level = float(np.log(max(outcome.sum(), 1e-9) / np.exp(init_score).sum()))
        weights = _fit_weights(_standardised(logs, centre, width), outcome, init_score + level, ridge)
        return cls(centre, width, weights[1:], level + float(weights[0]))

    def linear_predictor(self, design: Floats) -> Floats:
        """The logarithm of each row's amount beyond what it starts from."""
        logs: Floats = self.level + self._terms(design) @ self.weights
        return logs

    def contributions(self, design: Floats) -> Floats:
        """How much each feature adds to each row, against the usual."""
        parts: Floats = self._terms(design) * self.weights
        return parts

    def to_dict(self) -> dict[str, Any]:
        """All there is to keep."""
        parts = {"centre": self.centre, "width": self.width, "weights": self.weights}
        return {name: part.tolist() for name, part in parts.items()} | {"level": self.level}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read back what `numbers` gave."""
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
    """The intercept, which the ridge spares, then a weight a column."""
    design = np.column_stack([np.ones(len(terms)), terms])
    penalty = ridge * np.array([0.0] + [1.0] * terms.shape[1])
    weights = np.zeros(design.shape[1])
    scale = max(float(outcome.mean()), 1e-9) ** (2 - POWER)  # so that the ridge means the same in any currency
    for _ in range(MAX_STEPS):
        amount = np.exp(np.clip(offset + design @ weights, -15.0, 20.0))
        gradient = design.T @ ((outcome - amount) * amount ** (1 - POWER)) / scale - penalty * weights
        hessian = (design.T * (amount ** (2 - POWER) / scale)) @ design + np.diag(penalty)
        step = np.linalg.solve(hessian + 1e-9 * np.eye(len(weights)), gradient)
        weights = weights + np.clip(step, -MAX_STEP, MAX_STEP)
        if np.abs(step).max() < STEP_TOLERANCE:
            break
    return weights
