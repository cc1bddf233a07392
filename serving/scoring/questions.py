"""The questions that models answer about customers, each with its predictor, which online and nightly scoring share."""

from __future__ import annotations

from collections.abc import Callable

from serving.scoring import churn, offers, recommender, restock, timing, value
from serving.scoring.fallback import Prediction
from serving.scoring.inputs import ScoringInputs

#: By model name. Churn comes before timing, which agrees with its score.
PREDICTORS: dict[str, Callable[[ScoringInputs], Prediction]] = {
    "churn": churn.predict_churn,
    "timing": timing.predict_return,
    "value": value.predict_value,
    "recommender": recommender.recommend_products,
    "restock": restock.predict_restock,
    "offers": offers.predict_offers,
}
