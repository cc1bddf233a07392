"""Responses of the prediction endpoints: the champions' predictions for customers, stored before they are returned.

Every requested id gets a result, in the order of the request; an unknown customer, or one without features, gets the
population average and is flagged as a fallback.
"""

from __future__ import annotations

from dataclasses import replace

from serving.api import response_items
from serving.api.requested_customers import RequestedCustomers, build_envelope
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
from serving.runtime import UNKNOWN_CUSTOMER
from serving.scoring import churn, offers, recommender, restock, timing, value
from serving.scoring.online import predict_and_store

#: Ineligible offers listed in a response about several customers: in all, and per customer at least and at most.
MAX_INELIGIBLE_TOTAL, MIN_INELIGIBLE_PER_CUSTOMER, MAX_INELIGIBLE_PER_CUSTOMER = 20_000, 20, 1_000


def answer_churn(requested: RequestedCustomers) -> ChurnAnswer:
    """P(no purchase within the churn horizon) of each customer, with reasons."""
    champion = requested.inputs.champion("churn")
    prediction = predict_and_store(requested.inputs, "churn", churn.predict_churn)
    results = [
        ChurnResult(
            **requested.common_fields(prediction.frame, prediction.fallback, position),
            probability=float(prediction.probability[row]),
            horizon_days=prediction.horizon_days,
            band=prediction.band[row],
            reasons=[reason_text for reason_text, _ in prediction.reasons[row]],
        )
        for position, row in enumerate(requested.rows)
    ]
    return ChurnAnswer(**build_envelope(requested.runtime, "churn", prediction.frame, [champion], results))


def answer_next_purchase(requested: RequestedCustomers) -> NextPurchaseAnswer:
    """When each customer is expected to buy next; at the churn horizon it agrees with the churn champion, if any."""
    inputs = requested.inputs
    champion, churn_champion = inputs.champion("timing"), inputs.find_champion("churn")
    if churn_champion:
        predict_and_store(inputs, "churn", churn.predict_churn)
    prediction = predict_and_store(inputs, "timing", timing.predict_return)
    fields_by_row = response_items.build_next_purchase_fields(requested.runtime, prediction)
    results = [
        NextPurchaseResult(
            **requested.common_fields(prediction.frame, prediction.fallback, position), **fields_by_row[row]
        )
        for position, row in enumerate(requested.rows)
    ]
    champions = [champion, *filter(None, [churn_champion])]
    return NextPurchaseAnswer(
        **build_envelope(requested.runtime, "next-purchase", prediction.frame, champions, results)
    )


def answer_value(requested: RequestedCustomers) -> ValueAnswer:
    """The expected spend of each customer within the value horizon."""
    champion, currency = requested.inputs.champion("value"), requested.runtime.shop.currency
    prediction = predict_and_store(requested.inputs, "value", value.predict_value)
    results = [
        ValueResult(
            **requested.common_fields(prediction.frame, prediction.fallback, position),
            expected=value.format_amount(prediction.expected[row], currency),
            currency=currency,
            horizon_days=prediction.horizon_days,
        )
        for position, row in enumerate(requested.rows)
    ]
    return ValueAnswer(**build_envelope(requested.runtime, "value", prediction.frame, [champion], results))


def answer_restock(requested: RequestedCustomers, question: RestockQuestion) -> RestockAnswer:
    """The categories that each customer is likely to buy again within the requested days."""
    champion = requested.inputs.champion("restock")
    prediction = predict_and_store(requested.inputs, "restock", restock.predict_restock)
    items_by_key = response_items.build_restock_items(
        requested.runtime, prediction.frame, restock.rank_within(prediction.items, question.within_days)
    )
    keys = prediction.frame["customer_key"].tolist()
    results = [
        RestockResult(
            **requested.common_fields(prediction.frame, prediction.fallback, position),
            items=items_by_key.get(keys[row], []),
        )
        for position, row in enumerate(requested.rows)
    ]
    return RestockAnswer(**build_envelope(requested.runtime, "restock", prediction.frame, [champion], results))


def answer_recommendations(requested: RequestedCustomers, question: RecommendationQuestion) -> RecommendationAnswer:
    """The products that each customer is most likely to buy next."""
    runtime, champion = requested.runtime, requested.inputs.champion("recommender")
    recommended = predict_and_store(requested.inputs, "recommender", recommender.recommend_products)
    selection = response_items.select_products(
        champion, question, recommended, runtime, include_unknown=len(requested.keys) in requested.rows
    )
    items_by_key, shortages_by_key = (
        response_items.build_product_items(runtime, selection.listed),
        response_items.build_shortages(selection),
    )
    keys = recommended.frame["customer_key"].tolist()
    results = [
        RecommendationResult(
            **requested.common_fields(recommended.frame, recommended.fallback, position),
            items=items_by_key.get(keys[row], []),
            short=shortages_by_key.get(keys[row]),
            notes=selection.notes,
        )
        for position, row in enumerate(requested.rows)
    ]
    return RecommendationAnswer(**build_envelope(runtime, "recommendations", recommended.frame, [champion], results))


def answer_offers(
    requested: RequestedCustomers, question: OffersQuestion, *, customer_count: int | None = None
) -> OffersAnswer:
    """The eligible offers for each customer, best first, and why each other offer is not eligible.

    customer_count: of the whole request, where these customers are a part of it.
    """
    runtime, champion = requested.runtime, requested.inputs.champion("offers")
    prediction = predict_and_store(requested.inputs, "offers", offers.predict_offers)
    row_by_key = {key: row for row, key in enumerate(prediction.frame["customer_key"].tolist())}
    # Unprofiled customers have rows of their own here, since eligibility holds for them too.
    requested = replace(
        requested, rows=[row_by_key[requested.key_by_id.get(name, UNKNOWN_CUSTOMER)] for name in requested.customer_ids]
    )
    codes = offers.restrict_to_request(
        prediction.ranked_offers, channel=question.channel, exclude=question.exclude_offer_ids
    )
    items_by_row = response_items.build_offer_items(
        runtime, offers.top_offers(prediction.ranked_offers, codes, question.n), prediction.ranked_offers
    )
    max_ineligible = ineligible_limit(customer_count or len(requested.rows))
    ineligible_by_row = {
        row: offers.list_ineligible(prediction.ranked_offers, codes, row, max_ineligible) for row in set(requested.rows)
    }
    results = [
        OffersResult(
            **requested.common_fields(prediction.frame, prediction.fallback, position),
            items=items_by_row.get(row, []),
            dropped=[Dropped(**each) for each in ineligible_by_row[row][0]],
            dropped_count=ineligible_by_row[row][1],
            nothing=offers.explain_none(codes[row]),
        )
        for position, row in enumerate(requested.rows)
    ]
    return OffersAnswer(**build_envelope(runtime, "offers", prediction.frame, [champion], results))


def ineligible_limit(customer_count: int) -> int | None:
    """How many ineligible offers to list per customer; None, for all of them, where there is only one customer."""
    return (
        None
        if customer_count == 1
        else min(max(MAX_INELIGIBLE_TOTAL // customer_count, MIN_INELIGIBLE_PER_CUSTOMER), MAX_INELIGIBLE_PER_CUSTOMER)
    )
