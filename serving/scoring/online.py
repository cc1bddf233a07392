"""Online scoring of some customers by the current champions; scores are stored before they are returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from customers import tracing
from customers.privacy import consents
from customers.scores.score_store import OnlineScores
from features.store.feature_store import WrittenRows
from serving.runtime import ServerRuntime
from serving.scoring import write_back
from serving.scoring.fallback import Prediction
from serving.scoring.inputs import OnlineInputs
from serving.scoring.questions import PREDICTORS

PredictionT = TypeVar("PredictionT", bound=Prediction)


def filter_profiling_allowed(runtime: ServerRuntime, keys: Sequence[int]) -> list[int]:
    """Those of these customers who allow profiling, in their order."""
    allowed = consents.allowed_customers(runtime.shop, keys, "profiling")
    return [key for key in keys if key in allowed]


def rescore_customers(runtime: ServerRuntime, keys: Sequence[int], written: WrittenRows | None = None) -> None:
    """Predict every question that has a champion, and store all together, for customers who allow profiling.

    written: features of these customers that were pushed to the online store just now.
    """
    inputs, batches = OnlineInputs(runtime, keys, written=written), list[OnlineScores]()
    for name, predict in PREDICTORS.items():
        if inputs.find_champion(name):
            prediction = predict(inputs)
            scored = prediction.frame[prediction.is_scored]
            batches += write_back.group_by_as_of(inputs.champion(name), scored, prediction.iter_rows())
    write_back.store_batches(runtime.shop, batches)


def predict_and_store(inputs: OnlineInputs, name: str, predict: Callable[[OnlineInputs], PredictionT]) -> PredictionT:
    """The prediction of a question, of which the scored customers' rows are stored."""
    with tracing.span("scoring", model=name):
        prediction = predict(inputs)
    scored = prediction.frame[prediction.is_scored]
    write_back.store_online_scores(inputs.shop, inputs.champion(name), scored, prediction.iter_rows())
    return prediction
