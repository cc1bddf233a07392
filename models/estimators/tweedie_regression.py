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
FARTHEST = 4.0
MOST_STEPS, SMALL_STEP, LARGEST_STEP = 15, 1e-3, 1.0


@dataclass(frozen=True)
class Straight:
    """A Tweedie regression with a logarithmic link (Jorgensen 1987), by Newton's method.

    Features are read as logarithms, centred and scaled; an unknown one counts as the usual.
    """

    centre: Floats
    width: Floats
    weights: Floats
    level: float

    @classmethod
    def fit(cls, design: Floats, outcome: Floats, start: Floats, *, ridge: float = RIDGE) -> Self:
        """Learn from rows of features (n, columns), amounts (n,) and the logarithms they start from (n,)."""
        logs = _logs(design)
        known = np.maximum(np.isfinite(logs).sum(axis=0), 1)
        centre = np.nansum(logs, axis=0) / known
        spread = np.sqrt(np.nansum((logs - centre) ** 2, axis=0) / known)
        width = np.where(spread > 1e-9, spread, 1.0)
        level = float(np.log(max(outcome.sum(), 1e-9) / np.exp(start).sum()))
        weights = _weights(_scaled(logs, centre, width), outcome, start + level, ridge)
        return cls(centre, width, weights[1:], level + float(weights[0]))

    def added(self, design: Floats) -> Floats:
        """The logarithm of each row's amount beyond what it starts from."""
        logs: Floats = self.level + self._terms(design) @ self.weights
        return logs

    def contributions(self, design: Floats) -> Floats:
        """How much each feature adds to each row, against the usual."""
        parts: Floats = self._terms(design) * self.weights
        return parts

    def numbers(self) -> dict[str, Any]:
        """All there is to keep."""
        parts = {"centre": self.centre, "width": self.width, "weights": self.weights}
        return {name: part.tolist() for name, part in parts.items()} | {"level": self.level}

    @classmethod
    def of(cls, numbers: dict[str, Any]) -> Self:
        """Read back what `numbers` gave."""
        centre, width, weights = (np.array(numbers[name]) for name in ("centre", "width", "weights"))
        return cls(centre, width, weights, numbers["level"])

    def _terms(self, design: Floats) -> Floats:
        return _scaled(_logs(design), self.centre, self.width)


def _logs(design: Floats) -> Floats:
    logs: Floats = np.sign(design) * np.log1p(np.abs(design))
    return logs


def _scaled(logs: Floats, centre: Floats, width: Floats) -> Floats:
    return np.nan_to_num(np.clip((logs - centre) / width, -FARTHEST, FARTHEST))


def _weights(terms: Floats, outcome: Floats, offset: Floats, ridge: float) -> Floats:
    """The intercept, which the ridge spares, then a weight a column."""
    design = np.column_stack([np.ones(len(terms)), terms])
    penalty = ridge * np.array([0.0] + [1.0] * terms.shape[1])
    weights = np.zeros(design.shape[1])
    scale = max(float(outcome.mean()), 1e-9) ** (2 - POWER)  # so that the ridge means the same in any currency
    for _ in range(MOST_STEPS):
        amount = np.exp(np.clip(offset + design @ weights, -15.0, 20.0))
        slope = design.T @ ((outcome - amount) * amount ** (1 - POWER)) / scale - penalty * weights
        curve = (design.T * (amount ** (2 - POWER) / scale)) @ design + np.diag(penalty)
        step = np.linalg.solve(curve + 1e-9 * np.eye(len(weights)), slope)
        weights = weights + np.clip(step, -LARGEST_STEP, LARGEST_STEP)
        if np.abs(step).max() < SMALL_STEP:
            break
    return weights
