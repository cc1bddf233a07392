"""Fresh: what the champions say now of some customers, from their newest figures, kept before anybody hears it."""

from __future__ import annotations

from collections.abc import Sequence

from customers.privacy import consents
from serving.runtime import FeatureCache, ServerRuntime
from serving.scoring import churn, offers, recommender, restock, value
from serving.scoring import timing as timing_scoring


def profiling_allowed(runtime: ServerRuntime, keys: Sequence[int]) -> list[int]:
    """Those of these customers of whom anything may be foretold, in their order."""
    allowed = consents.allowed_customers(runtime.shop, keys, "profiling")
    return [key for key in keys if key in allowed]


def rescore_customers(runtime: ServerRuntime, keys: Sequence[int]) -> None:
    """Whatever the shop has a champion for, said again of these customers and kept."""
    feature_cache: FeatureCache = {}
    churn_champion = runtime.champions.get("churn")
    churn_prediction = churn.predict_churn(runtime, churn_champion, keys, feature_cache)[0] if churn_champion else None
    if timing_champion := runtime.champions.get("timing"):
        timing_scoring.predict_return(runtime, timing_champion, keys, churn_prediction, feature_cache)
    for name, predict in (
        ("value", value.predict_value),
        ("recommender", recommender.recommend_products),
        ("restock", restock.predict_restock),
        ("offers", offers.predict_offers),
    ):
        if champion := runtime.champions.get(name):
            predict(runtime, champion, keys, feature_cache=feature_cache)
