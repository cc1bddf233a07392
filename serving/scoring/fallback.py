"""Scoring: from customers' figures and a model to what is said about them, the same at the door and at night.

Frames have one row a customer: `customer_key`, `as_of` (the moment the figures speak of, NaT where the shop
has no figures of theirs yet), then features. Who has none gets what holds for customers in general.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.base import Model
from models.registry.bundle import Champion

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class HasFallback(Protocol):
    """Something said of many customers, with a flag for each who got what holds for all."""

    @property
    def fallback(self) -> Flags: ...


PredictionT = TypeVar("PredictionT", bound=HasFallback)
#: Scored beside others, a row may differ in its last digits; nobody should see that.
PROBABILITY_DIGITS = 9


def flag_fallback(prediction: PredictionT, is_model_fallback: bool) -> PredictionT:
    """The same, flagged for everybody where a plain rule stands in for a model."""
    return replace(cast(Any, prediction), fallback=prediction.fallback | is_model_fallback)


def has_features(frame: pd.DataFrame) -> Flags:
    """Which rows carry features at all."""
    return frame["as_of"].notna().to_numpy(dtype=bool)


def score_or_average(model: Model, frame: pd.DataFrame, average: Floats) -> tuple[Floats, Flags]:
    """Scores (n, k) of those with figures, and the typical answer, flagged, for all others.

    A number that is none (a broken model, a figure gone wrong) is answered with the typical one too.
    """
    scores = np.tile(average, (len(frame), 1))
    rows = np.flatnonzero(has_features(frame))
    if len(rows):
        scored = np.asarray(model.score(frame.iloc[rows].reset_index(drop=True)), np.float64)
        scored = scored.reshape(len(rows), -1)
        is_finite = np.isfinite(scored).all(axis=1)
        rows = rows[is_finite]
        scores[rows] = scored[is_finite]
    is_fallback = np.ones(len(frame), dtype=bool)
    is_fallback[rows] = False
    return scores, is_fallback


def rounded(chances: Floats) -> Floats:
    return np.asarray(np.round(np.clip(chances, 0.0, 1.0), PROBABILITY_DIGITS), np.float64)


def uses_fallback(champion: Champion) -> bool:
    """Whether this champion is the plain rule that serves where there was too little to learn from."""
    return bool(champion.facts.get("fallback", False))
