"""The latest stored score of every model for one customer, in the format of its endpoint."""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress
from typing import Any

import pandas as pd

from customers import clock
from customers.catalogue import products
from customers.marketing import stored_offers
from customers.privacy import consents
from customers.reports import recommendation_reasons
from customers.scores import score_details, score_store
from customers.scores.score_store import StoredScore
from serving.api import requested_customers
from serving.ingestion import score_writer
from serving.runtime import ServerRuntime
from serving.scoring import value

#: At most this many entries of a stored list are shown.
MAX_ITEMS = 10


def load_latest_scores(runtime: ServerRuntime, customer_key: int) -> dict[str, dict[str, Any]]:
    """The latest stored score of each model, by model name; after a sale, those that include it."""
    score_writer.get_writer().wait([customer_key])
    latest = score_store.load_customer_scores(runtime.shop, customer_key)
    return {
        name: _version_fields(score) | FORMATTERS[name](runtime, score)
        for name, score in latest.items()
        if name in FORMATTERS
    }


def _version_fields(score: StoredScore) -> dict[str, Any]:
    return {"version": score.version, "as_of": score.as_of}


def _format_churn(runtime: ServerRuntime, score: StoredScore) -> dict[str, Any]:
    detail = recommendation_reasons.without_sensitive_reasons(
        score_details.decode_churn(score.detail), runtime.get_inventory().sensitive_categories
    )
    return {"probability": score.value, **detail.to_fields()}


def _format_timing(runtime: ServerRuntime, score: StoredScore) -> dict[str, Any]:
    return score_details.decode_timing(score.detail).to_fields()


def _format_value(runtime: ServerRuntime, score: StoredScore) -> dict[str, Any]:
    currency, detail = runtime.shop.currency, score_details.decode_value(score.detail)
    expected = value.format_amount(score.value or 0.0, currency)
    return {"expected": expected, "currency": currency, **detail.to_fields()}


def _format_products(runtime: ServerRuntime, score: StoredScore) -> dict[str, Any]:
    detail = score_details.decode_recommender(score.detail)
    hidden = _hidden_from_customer(runtime, score.customer_key, runtime.get_inventory().sensitive_products)
    listed = [product for product in detail.iter_products("any") if product.product_key not in hidden][:MAX_ITEMS]
    ids = products.find_ids(runtime.shop, [product.product_key for product in listed])
    reason_texts = recommendation_reasons.product_reasons(
        runtime.shop, [(score.customer_key, product.source, product.evidence) for product in listed]
    )
    items = [
        {
            "rank": rank,
            "product_id": ids[product.product_key],
            "score": product.score,
            "source": product.source,
            "reason": reason,
        }
        for rank, (product, reason) in enumerate(zip(listed, reason_texts, strict=True), start=1)
    ]
    return {"items": items, "fallback": detail.fallback}


def _format_offers(runtime: ServerRuntime, score: StoredScore) -> dict[str, Any]:
    """The stored offers that are still eligible."""
    detail = score_details.decode_offers(score.detail)
    currency, offers_by_key = runtime.shop.currency, runtime.get_inventory().catalogue.offers.set_index("offer_key")
    current = [offer for offer in detail.iter_offers() if offer.offer_key in offers_by_key.index]
    pairs = pd.DataFrame({"customer_key": score.customer_key, "offer_key": [offer.offer_key for offer in current]})
    eligible = list(compress(current, stored_offers.is_still_eligible(runtime.shop, pairs)))[:MAX_ITEMS]
    reason_texts = recommendation_reasons.offer_reasons(
        runtime.shop, [(score.customer_key, offer.reason) for offer in eligible]
    )
    items = [
        {
            "rank": rank,
            "offer_id": offers_by_key.at[offer.offer_key, "public_id"],
            "score": offer.probability,
            "expected_gain": None
            if offer.expected_gain is None
            else value.format_amount(offer.expected_gain, currency),
            "reason": reason,
            "expires_at": requested_customers.to_datetime(offers_by_key.at[offer.offer_key, "ends_at"]),
        }
        for rank, (offer, reason) in enumerate(zip(eligible, reason_texts, strict=True), start=1)
    ]
    return {"items": items, "fallback": detail.fallback}


def _format_restock(runtime: ServerRuntime, score: StoredScore) -> dict[str, Any]:
    detail, now, zone = score_details.decode_restock(score.detail), runtime.now(), runtime.shop.zone
    hidden = _hidden_from_customer(runtime, score.customer_key, runtime.get_inventory().sensitive_categories)
    items = [
        {
            "category": item.category,
            "p": {"7": item.p_7d, "14": item.p_14d, "28": item.p_28d},
            "expected_at": None
            if item.wait_days is None
            else clock.expected_purchase_at(score.as_of, item.wait_days, zone, now=now),
        }
        for item in detail.iter_categories()
        if item.category not in hidden
    ]
    return {"items": items[:MAX_ITEMS], "fallback": detail.fallback}


def _hidden_from_customer(runtime: ServerRuntime, customer_key: int, sensitive: frozenset[Any]) -> frozenset[Any]:
    """The sensitive items that must not be shown: the consent may have been revoked since the score was stored."""
    may_see = sensitive and consents.allowed_customers(runtime.shop, [customer_key], "profiling_sensitive")
    return frozenset() if may_see else sensitive


FORMATTERS: dict[str, Callable[[ServerRuntime, StoredScore], dict[str, Any]]] = {
    "churn": _format_churn,
    "timing": _format_timing,
    "value": _format_value,
    "recommender": _format_products,
    "offers": _format_offers,
    "restock": _format_restock,
}
