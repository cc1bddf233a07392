"""Value scores: expected spend within the horizon, in the shop's currency; online and at night."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from customers.scores import score_details
from customers.scores.score_details import ScoreRow
from customers.shop import money
from models.base import Model
from serving.scoring import fallback
from serving.scoring.fallback import Floats, Prediction
from serving.scoring.inputs import ScoringInputs


@dataclass(frozen=True)
class ValuePrediction(Prediction):
    """Expected spend within horizon_days, (n,), in the shop's currency."""

    expected: Floats
    horizon_days: int

    def iter_rows(self) -> Iterator[ScoreRow]:
        """The rows to store, one per customer of the frame."""
        return score_details.encode_value(
            self.frame["customer_key"].tolist(), self.expected, horizon_days=self.horizon_days, fallback=self.fallback
        )


def predict_value(inputs: ScoringInputs) -> ValuePrediction:
    """Expected spend of the customers of the inputs; computed once, since churn bands may depend on it."""
    return inputs.predict_once("value", lambda: _predict_value(inputs))


def _predict_value(inputs: ScoringInputs) -> ValuePrediction:
    return score_value(
        inputs.get_model("value"),
        inputs.load_features("value"),
        currency=inputs.shop.currency,
        uses_fallback=inputs.uses_fallback("value"),
    )


def score_value(model: Model, frame: pd.DataFrame, *, currency: str, uses_fallback: bool = False) -> ValuePrediction:
    """Expected spend per row, rounded to the currency's minor unit and at least 0.

    frame: columns customer_key, as_of and the model's features.
    """
    expected, is_scored = fallback.score_or_average(
        model, frame, np.atleast_1d(np.asarray(model.population_average(), np.float64))
    )
    rounded = np.round(np.maximum(expected[:, 0], 0.0), money.EXPONENTS[currency])
    return ValuePrediction(
        frame=frame,
        is_scored=is_scored,
        fallback=~is_scored | uses_fallback,
        expected=np.asarray(rounded, np.float64),
        horizon_days=value_horizon_days(model),
    )


def value_horizon_days(model: Any) -> int:
    """The horizon of a value model, in days."""
    return int(model.horizon_days)


def format_amount(expected: float, currency: str) -> str:
    """An amount as the HTTP API writes money: a decimal text."""
    return money.format_amount(money.to_minor_units(repr(float(expected)), currency), currency)
