"""Leanings: each figure of a customer shifts the odds a little, in proportion and always in the same direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.special import expit

from models.base import Floats

#: How much the weights lean on nothing. Rows are many but few are of different customers.
RIDGE = 300.0
#: A figure counts as this many widths from the usual at most: nobody is judged from beyond what was seen.
FARTHEST = 5.0
MOST_STEPS, SMALL_STEP, LARGEST_STEP = 20, 1e-4, 3.0


def logs(design: Floats) -> Floats:
    """Sizes on a scale on which money, days and shares are alike; the sign stays."""
    scaled: Floats = np.sign(design) * np.log1p(np.abs(design))
    return scaled


@dataclass(frozen=True)
class Leanings:
    """A logistic regression by Newton's method; an unknown figure counts as the usual, and as unknown.

    The first column is trusted: the ridge spares its weight, so that with few rows it is what remains.
    """

    centre: Floats
    width: Floats
    unknown: Floats  # the share of rows in which each column was unknown
    weights: Floats  # of the columns, then of their being unknown
    offset: float

    @classmethod
    def fit(cls, design: Floats, outcome: Floats, start: Floats, *, ridge: float = RIDGE) -> Self:
        """Learn from rows of features (n, columns), outcomes 0 or 1 (n,) and the log odds they start from (n,)."""
        known = np.isfinite(design)
        count = np.maximum(known.sum(axis=0), 1)
        centre = np.where(known, design, 0.0).sum(axis=0) / count
        spread = np.sqrt((np.where(known, design - centre, 0.0) ** 2).sum(axis=0) / count)
        blank = cls(centre, np.where(spread > 1e-6, spread, np.inf), 1 - known.mean(axis=0), np.empty(0), 0.0)
        weights = _weights(blank._terms(design), outcome, start, ridge)
        return cls(blank.centre, blank.width, blank.unknown, weights[1:], float(weights[0]))

    def added(self, design: Floats) -> Floats:
        """The log odds of each row beyond what it starts from."""
        odds: Floats = self.offset + self._terms(design) @ self.weights
        return odds

    def moved(self, by: float) -> Self:
        """The same, by so much higher for everybody."""
        return type(self)(self.centre, self.width, self.unknown, self.weights, self.offset + by)

    def contributions(self, design: Floats) -> Floats:
        """How much each column adds to each row, in log odds, against the usual."""
        parts = self._terms(design) * self.weights
        columns = design.shape[1]
        return np.asarray(parts[:, :columns] + parts[:, columns:], dtype=np.float64)

    def numbers(self) -> dict[str, Any]:
        """All there is to keep; a column that never differed has no width."""
        parts = {name: getattr(self, name).tolist() for name in ("centre", "unknown", "weights")}
        width = [None if np.isinf(value) else float(value) for value in self.width]
        return parts | {"width": width, "offset": self.offset}

    @classmethod
    def of(cls, numbers: dict[str, Any]) -> Self:
        """Read back what `numbers` gave."""
        centre, unknown, weights = (np.array(numbers[name]) for name in ("centre", "unknown", "weights"))
        width = np.array([np.inf if value is None else value for value in numbers["width"]])
        return cls(centre, width, unknown, weights, numbers["offset"])

    def _terms(self, design: Floats) -> Floats:
        known = np.isfinite(design)
        near = np.clip(np.where(known, design - self.centre, 0.0) / self.width, -FARTHEST, FARTHEST)
        spread = np.sqrt(self.unknown * (1 - self.unknown))
        absent = np.where(spread > 1e-6, (~known - self.unknown) / np.maximum(spread, 1e-6), 0.0)
        return np.hstack([near, absent])


def _weights(terms: Floats, outcome: Floats, start: Floats, ridge: float) -> Floats:
    """The intercept and the first column's weight, which the ridge spares, then a weight a column."""
    useful = np.flatnonzero(np.abs(terms).max(axis=0, initial=0.0) > 0)
    design = np.column_stack([np.ones(len(terms)), terms[:, useful]])
    penalty = ridge * np.concatenate([[0.0], np.where(useful == 0, 0.0, 1.0)])
    weights = np.zeros(design.shape[1])
    for _ in range(MOST_STEPS):
        chance = expit(start + design @ weights)
        slope = design.T @ (outcome - chance) - penalty * weights
        curve = (design.T * (chance * (1 - chance))) @ design + np.diag(penalty + 1e-6)
        step = np.clip(np.linalg.solve(curve, slope), -LARGEST_STEP, LARGEST_STEP)
        weights = weights + step
        if np.abs(step).max() < SMALL_STEP:
            break
    whole = np.zeros(1 + terms.shape[1])
    whole[np.concatenate([[0], 1 + useful])] = weights
    return whole
