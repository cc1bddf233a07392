"""Spending: what each customer is expected to spend within the horizon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from customers.scores import score_details
from customers.scores.score_details import ScoreRow
from customers.shop import money
from models.base import Model
from models.registry.bundle import Champion
from serving.runtime import FeatureCache, ServerRuntime
from serving.scoring import fallback
from serving.scoring import fallback as fallback_scoring
from serving.scoring.fallback import Flags, Floats


@dataclass(frozen=True, slots=True)
class ValuePrediction:
    """What they will spend: a row a customer, in the frame's order, in the shop's currency."""

    expected: Floats
    horizon_days: int
    fallback: Flags


def score_value(model: Model, frame: pd.DataFrame, *, currency: str) -> ValuePrediction:
    """The expected spend of every row of the frame, to the cent; nobody is expected to bring money back."""
    expected, is_fallback = fallback_scoring.score_or_average(
        model, frame, np.atleast_1d(np.asarray(model.population_average(), np.float64))
    )
    rounded = np.round(np.maximum(expected[:, 0], 0.0), money.EXPONENTS[currency])
    return ValuePrediction(np.asarray(rounded, np.float64), value_horizon_days(model), is_fallback)


def value_horizon_days(model: Any) -> int:
    """The days ahead that a value model speaks of."""
    return int(model.horizon_days)


def format_amount(expected: float, currency: str) -> str:
    """Money as answers say it."""
    return money.format_amount(money.to_minor_units(repr(float(expected)), currency), currency)


def encode_value(frame: pd.DataFrame, prediction: ValuePrediction) -> Iterator[ScoreRow]:
    """A row a customer: what they are expected to spend, and {"horizon_days", "fallback"}."""
    columns = zip(
        frame["customer_key"].tolist(), prediction.expected.tolist(), prediction.fallback.tolist(), strict=True
    )
    for key, expected, is_fallback in columns:
        yield (
            key,
            expected,
            score_details.dump_detail({"horizon_days": prediction.horizon_days, "fallback": is_fallback}),
        )


def predict_value(
    runtime: ServerRuntime, champion: Champion, keys: Sequence[int], feature_cache: FeatureCache | None = None
) -> tuple[ValuePrediction, pd.DataFrame]:
    """What each will spend."""
    frame = runtime.load_features(champion, keys, feature_cache)
    prediction = score_value(champion.model, frame, currency=runtime.shop.currency)
    scored = frame[~prediction.fallback]
    prediction = fallback.flag_fallback(prediction, fallback.uses_fallback(champion))
    runtime.store_scores(champion, scored, encode_value(frame, prediction))
    return prediction, frame
