"""Answers: from customers' ids to what a champion says of them now, written down before it is said.

Whatever id is asked for gets an answer, in the order asked; one that the shop does not know, or has no
figures of, gets what holds for the shop and is flagged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from serving.api import response_items
from serving.api.requested_customers import build_envelope, resolve_customers
from serving.api.schemas.predictions import (
    ChurnAnswer,
    ChurnResult,
    Dropped,
    NextPurchaseAnswer,
    NextPurchaseResult,
    OffersAnswer,
    OffersQuestion,
    OffersResult,
    RestockAnswer,
    RestockQuestion,
    RestockResult,
    ValueAnswer,
    ValueResult,
)
from serving.api.schemas.recommendations import RecommendationAnswer, RecommendationQuestion, RecommendationResult
from serving.runtime import UNKNOWN_CUSTOMER, FeatureCache, ServerRuntime
from serving.scoring import churn as churn_scoring
from serving.scoring import offers as offers_scoring
from serving.scoring import recommender, timing
from serving.scoring import restock as restock_scoring
from serving.scoring import value as value_scoring

#: So many dropped offers are named in an answer about several customers, shared among them; each is told of some.
MAX_INELIGIBLE_TOTAL, MIN_INELIGIBLE_PER_CUSTOMER, MAX_INELIGIBLE_PER_CUSTOMER = 20_000, 20, 1_000


def answer_churn(runtime: ServerRuntime, customer_ids: Sequence[str]) -> ChurnAnswer:
    """How likely each customer is to stay away for the whole horizon, and why."""
    requested = resolve_customers(runtime, customer_ids)
    champion = runtime.champion("churn")
    prediction, frame = churn_scoring.predict_churn(runtime, champion, requested.keys)
    results = [
        ChurnResult(
            **requested.common_fields(frame, prediction.fallback, position),
            probability=float(prediction.probability[row]),
            horizon_days=prediction.horizon_days,
            band=prediction.band[row],
            reasons=[reason_text for reason_text, _ in prediction.reasons[row]],
        )
        for position, row in enumerate(requested.rows)
    ]
    return ChurnAnswer(**build_envelope(runtime, "churn", frame, [champion], results))


def answer_next_purchase(runtime: ServerRuntime, customer_ids: Sequence[str]) -> NextPurchaseAnswer:
    """When each customer comes back; at churn's horizon it is churn's own number, where churn speaks."""
    requested = resolve_customers(runtime, customer_ids)
    champion, churn_champion = runtime.champion("timing"), runtime.champions.get("churn")
    feature_cache: FeatureCache = {}
    churn_prediction = (
        churn_scoring.predict_churn(runtime, churn_champion, requested.keys, feature_cache)[0]
        if churn_champion
        else None
    )
    prediction, frame = timing.predict_return(runtime, champion, requested.keys, churn_prediction, feature_cache)
    fields_by_row = response_items.build_next_purchase_fields(runtime, frame, prediction)
    results = [
        NextPurchaseResult(**requested.common_fields(frame, prediction.fallback, position), **fields_by_row[row])
        for position, row in enumerate(requested.rows)
    ]
    return NextPurchaseAnswer(
        **build_envelope(runtime, "next-purchase", frame, [champion, *filter(None, [churn_champion])], results)
    )


def answer_value(runtime: ServerRuntime, customer_ids: Sequence[str]) -> ValueAnswer:
    """What each customer is expected to spend within the horizon."""
    requested = resolve_customers(runtime, customer_ids)
    champion, currency = runtime.champion("value"), runtime.shop.currency
    prediction, frame = value_scoring.predict_value(runtime, champion, requested.keys)
    results = [
        ValueResult(
            **requested.common_fields(frame, prediction.fallback, position),
            expected=value_scoring.format_amount(prediction.expected[row], currency),
            currency=currency,
            horizon_days=prediction.horizon_days,
        )
        for position, row in enumerate(requested.rows)
    ]
    return ValueAnswer(**build_envelope(runtime, "value", frame, [champion], results))


def answer_restock(runtime: ServerRuntime, question: RestockQuestion) -> RestockAnswer:
    """Which categories each customer will need again, within so many days."""
    requested = resolve_customers(runtime, question.customer_ids)
    champion = runtime.champion("restock")
    prediction = restock_scoring.predict_restock(runtime, champion, requested.keys)
    items_by_key = response_items.build_restock_items(
        runtime, prediction.frame, restock_scoring.rank_within(prediction.items, question.within_days)
    )
    keys = prediction.frame["customer_key"].tolist()
    results = [
        RestockResult(
            **requested.common_fields(prediction.frame, prediction.fallback, position),
            items=items_by_key.get(keys[row], []),
        )
        for position, row in enumerate(requested.rows)
    ]
    return RestockAnswer(**build_envelope(runtime, "restock", prediction.frame, [champion], results))


def answer_recommendations(runtime: ServerRuntime, question: RecommendationQuestion) -> RecommendationAnswer:
    """Which products each customer is likeliest to buy next."""
    requested = resolve_customers(runtime, question.customer_ids)
    champion = runtime.champion("recommender")
    recommended = recommender.recommend_products(runtime, champion, requested.keys)
    selection = response_items.select_products(
        champion, question, recommended, runtime, include_unknown=len(requested.keys) in requested.rows
    )
    items_by_key, shortages_by_key = (
        response_items.build_product_items(runtime, selection.listed),
        response_items.build_shortages(selection),
    )
    keys = recommended.history["customer_key"].tolist()
    results = [
        RecommendationResult(
            **requested.common_fields(recommended.history, recommended.fallback, position),
            items=items_by_key.get(keys[row], []),
            short=shortages_by_key.get(keys[row]),
            notes=selection.notes,
        )
        for position, row in enumerate(requested.rows)
    ]
    return RecommendationAnswer(**build_envelope(runtime, "recommendations", recommended.history, [champion], results))


def answer_offers(runtime: ServerRuntime, question: OffersQuestion) -> OffersAnswer:
    """Which offers to make to each customer, and why not the others."""
    requested = resolve_customers(runtime, question.customer_ids)
    champion = runtime.champion("offers")
    # What may not be made to somebody is kept from them also where nothing may be foretold of them.
    others = [key for key in dict.fromkeys(requested.key_by_id.values()) if key not in set(requested.keys)]
    prediction = offers_scoring.predict_offers(runtime, champion, requested.keys, others)
    row_by_key = {key: row for row, key in enumerate(prediction.frame["customer_key"].tolist())}
    requested = replace(
        requested, rows=[row_by_key[requested.key_by_id.get(name, UNKNOWN_CUSTOMER)] for name in question.customer_ids]
    )
    codes = offers_scoring.restrict_to_request(
        prediction.ranked_offers, channel=question.channel, exclude=question.exclude_offer_ids
    )
    items_by_row = response_items.build_offer_items(
        runtime, offers_scoring.top_offers(prediction.ranked_offers, codes, question.n), prediction.ranked_offers
    )
    max_ineligible = ineligible_limit(len(requested.rows))
    ineligible_by_row = {
        row: offers_scoring.list_ineligible(prediction.ranked_offers, codes, row, max_ineligible)
        for row in set(requested.rows)
    }
    results = [
        OffersResult(
            **requested.common_fields(prediction.frame, prediction.fallback, position),
            items=items_by_row.get(row, []),
            dropped=[Dropped(**each) for each in ineligible_by_row[row][0]],
            dropped_count=ineligible_by_row[row][1],
            nothing=offers_scoring.explain_none(prediction.ranked_offers, codes, row),
        )
        for position, row in enumerate(requested.rows)
    ]
    return OffersAnswer(**build_envelope(runtime, "offers", prediction.frame, [champion], results))


def ineligible_limit(customer_count: int) -> int | None:
    """How many dropped offers each of so many customers is told of; one alone is told of all."""
    return (
        None
        if customer_count == 1
        else min(max(MAX_INELIGIBLE_TOTAL // customer_count, MIN_INELIGIBLE_PER_CUSTOMER), MAX_INELIGIBLE_PER_CUSTOMER)
    )
