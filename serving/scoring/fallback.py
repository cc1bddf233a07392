"""Predictions of many customers and their fallback: the population average where a customer has no features.

Frames have one row per customer: columns customer_key, as_of (time of the newest features, NaT without features),
then features. Online frames end with a row of the unknown customer, which has no features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.scores.score_details import ScoreRow
from models.base import Model
from models.registry.bundle import Champion

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Scored in another batch, a row may differ in its last digits; rounding hides that.
PROBABILITY_DIGITS = 9


@dataclass(frozen=True)
class Prediction(ABC):
    """Predictions for the customers of a frame, in its row order.

    is_scored: (n,), the customer has features; for churn, timing and value, the model's score of them is finite too.
    fallback: (n,), the value holds for customers in general, or comes from a baseline that serves as fallback for the
    model.
    """

    frame: pd.DataFrame
    is_scored: Flags
    fallback: Flags

    @abstractmethod
    def iter_rows(self) -> Iterator[ScoreRow]:
        """The rows to store, one per customer of the frame."""


def has_features(frame: pd.DataFrame) -> Flags:
    """Flags (n,) of the rows that have features, by column as_of."""
    return frame["as_of"].notna().to_numpy(dtype=bool)


def score_or_average(model: Model, frame: pd.DataFrame, average: Floats) -> tuple[Floats, Flags]:
    """Scores (n, k) and flags (n,) of the rows that the model scored; all other rows get the average (k,).

    A row whose score is not finite (a broken model, a corrupt feature) gets the average too.
    """
    scores = np.tile(average, (len(frame), 1))
    rows = np.flatnonzero(has_features(frame))
    if len(rows):
        scored = np.asarray(model.score(frame.iloc[rows].reset_index(drop=True)), np.float64)
        scored = scored.reshape(len(rows), -1)
        is_finite = np.isfinite(scored).all(axis=1)
        rows = rows[is_finite]
        scores[rows] = scored[is_finite]
    is_scored = np.zeros(len(frame), dtype=bool)
    is_scored[rows] = True
    return scores, is_scored


def round_probabilities(probabilities: Floats) -> Floats:
    """Probabilities clipped to [0, 1] and rounded to PROBABILITY_DIGITS, same shape, e.g. (n,) or (n, k)."""
    return np.asarray(np.round(np.clip(probabilities, 0.0, 1.0), PROBABILITY_DIGITS), np.float64)


def uses_fallback(champion: Champion) -> bool:
    """Whether this champion is the baseline that serves where there was too little data to train a model."""
    return bool(champion.facts.get("fallback", False))
