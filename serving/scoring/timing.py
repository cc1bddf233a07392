"""Timing scores: when a customer comes back, online and by night."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.scores import score_details
from customers.scores.score_details import ScoreRow
from models.base import Model
from models.registry.bundle import Champion
from models.timing import model as timing_model
from serving.runtime import FeatureCache, ServerRuntime
from serving.scoring import churn, fallback
from serving.scoring import fallback as fallback_scoring
from serving.scoring.churn import ChurnPrediction
from serving.scoring.fallback import Flags, Floats


def encode_timing(frame: pd.DataFrame, prediction: ReturnPrediction) -> Iterator[ScoreRow]:
    """A row a customer: median wait, and {"p": within days, "days": quantiles, "cdf", "fallback"}."""
    median = prediction.quantile_days(0.5).tolist()
    quantiles = quantile_days(prediction)
    rounded = np.round(prediction.cdf, 6).tolist()
    for row, key in enumerate(frame["customer_key"].tolist()):
        detail = {
            "p": window_probabilities(prediction, row),
            "days": {name: days_by_row[row] for name, days_by_row in quantiles.items()},
            "cdf": rounded[row],
            "fallback": bool(prediction.fallback[row]),
        }
        yield key, float(median[row]), score_details.dump_detail(detail)


def window_probabilities(prediction: ReturnPrediction, row: int) -> dict[int, float | None]:
    """P(purchase within so many days) of one customer; None beyond the curve."""
    length = prediction.cdf.shape[1]
    cdf = prediction.cdf[row].tolist()
    return {within_days: cdf[within_days - 1] if within_days <= length else None for within_days in WITHIN_DAYS}


def quantile_days(prediction: ReturnPrediction) -> dict[str, list[int | None]]:
    """Days by which one in ten, half, and nine in ten such customers have come; None beyond the curve."""
    length = prediction.cdf.shape[1]
    return {
        name: [day if day <= length else None for day in prediction.quantile_days(share).tolist()]
        for name, share in QUANTILES.items()
    }


def predict_return(
    runtime: ServerRuntime,
    champion: Champion,
    keys: Sequence[int],
    churn_prediction: churn.ChurnPrediction | None,
    feature_cache: FeatureCache | None = None,
) -> tuple[ReturnPrediction, pd.DataFrame]:
    """When each comes back; `quiet` is what churn has just said of the same customers."""
    frame = runtime.load_features(champion, keys, feature_cache)
    prediction = score_return(champion.model, frame, churn_prediction)
    scored = frame[~prediction.fallback]
    prediction = fallback.flag_fallback(prediction, fallback.uses_fallback(champion))
    runtime.store_scores(champion, scored, encode_timing(frame, prediction))
    return prediction, frame


WITHIN_DAYS = (7, 14, 28, 90)
QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


@dataclass(frozen=True, slots=True)
class ReturnPrediction:
    """When they come back: `cdf[i, d - 1]` is P(customer i buys within d days), never falling."""

    cdf: Floats
    fallback: Flags

    def probability_within(self, days: int) -> Floats:
        """P(purchase within so many days); NaN beyond the curve."""
        return self.cdf[:, days - 1] if days <= self.cdf.shape[1] else np.full(len(self.cdf), np.nan)

    def quantile_days(self, share: float) -> NDArray[np.int64]:
        """The first day by which this share of them has come; one past the curve where it ends first."""
        return np.asarray((self.cdf < share).sum(axis=1) + 1, dtype=np.int64)


def score_return(
    model: Model, frame: pd.DataFrame, churn_prediction: ChurnPrediction | None = None
) -> ReturnPrediction:
    """When each customer comes back; bent so that at churn's horizon the curve says what churn says.

    A curve that ends before the horizon says nothing there and cannot contradict it.
    """
    survival, is_fallback = fallback_scoring.score_or_average(
        model, frame, np.asarray(model.population_average(), np.float64).ravel()
    )
    if churn_prediction is not None:
        survival = timing_model.reconcile(survival, churn_prediction.horizon_days, churn_prediction.probability)
    return ReturnPrediction(fallback_scoring.rounded(np.maximum.accumulate(1.0 - survival, axis=1)), is_fallback)
