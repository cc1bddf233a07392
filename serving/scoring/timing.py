"""Timing scores: distribution of the days to the next purchase; online and at night."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.scores import score_details
from customers.scores.score_details import ScoreRow
from models.base import Model
from models.timing import model as timing_model
from serving.scoring import churn, fallback
from serving.scoring.churn import ChurnPrediction
from serving.scoring.fallback import Floats, Prediction
from serving.scoring.inputs import ScoringInputs

WITHIN_DAYS = (7, 14, 28, 90)
QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


@dataclass(frozen=True)
class ReturnPrediction(Prediction):
    """P(purchase within d days) in column d - 1 of cdf: (n, n_days), non-decreasing along a row."""

    cdf: Floats

    def probability_within(self, days: int) -> Floats:
        """P(purchase within so many days), (n,); NaN beyond the curve."""
        return self.cdf[:, days - 1] if days <= self.cdf.shape[1] else np.full(len(self.cdf), np.nan)

    def quantile_days(self, share: float) -> NDArray[np.int64]:
        """First day on which P(purchase) reaches the share, (n,); n_days + 1 where the curve ends first."""
        return np.asarray((self.cdf < share).sum(axis=1) + 1, dtype=np.int64)

    def list_window_probabilities(self) -> dict[int, list[float | None]]:
        """P(purchase) within each of WITHIN_DAYS, a value per customer; None beyond the curve."""
        length = self.cdf.shape[1]
        return {
            days: self.cdf[:, days - 1].tolist() if days <= length else [None] * len(self.cdf) for days in WITHIN_DAYS
        }

    def list_quantile_days(self) -> dict[str, list[int | None]]:
        """Days of each of QUANTILES, a value per customer; None beyond the curve."""
        length = self.cdf.shape[1]
        return {
            name: [day if day <= length else None for day in self.quantile_days(share).tolist()]
            for name, share in QUANTILES.items()
        }

    def iter_rows(self) -> Iterator[ScoreRow]:
        """The rows to store, one per customer of the frame."""
        return score_details.encode_timing(
            self.frame["customer_key"].tolist(),
            self.cdf,
            median_days=self.quantile_days(0.5),
            probabilities_within=self.list_window_probabilities(),
            quantile_days=self.list_quantile_days(),
            fallback=self.fallback,
        )


def predict_return(inputs: ScoringInputs) -> ReturnPrediction:
    """Days to the next purchase of the customers of the inputs; agrees with churn where there is a churn model."""
    return score_return(
        inputs.get_model("timing"),
        inputs.load_features("timing"),
        churn.predict_churn(inputs) if inputs.find_model("churn") else None,
        uses_fallback=inputs.uses_fallback("timing"),
    )


def score_return(
    model: Model,
    frame: pd.DataFrame,
    churn_prediction: ChurnPrediction | None = None,
    *,
    uses_fallback: bool = False,
) -> ReturnPrediction:
    """P(purchase within d days) per row, adjusted so that at churn's horizon it is 1 - P(churn).

    frame: columns customer_key, as_of and the model's features; churn_prediction: of the same rows. A curve that ends
    before the horizon stays as it is.
    """
    survival, is_scored = fallback.score_or_average(
        model, frame, np.asarray(model.population_average(), np.float64).ravel()
    )
    if churn_prediction is not None:
        survival = timing_model.reconcile(survival, churn_prediction.horizon_days, churn_prediction.probability)
    cdf = fallback.round_probabilities(np.maximum.accumulate(1.0 - survival, axis=1))
    return ReturnPrediction(frame, is_scored, ~is_scored | uses_fallback, cdf)
