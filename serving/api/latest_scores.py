"""What every model said last about a customer, in the words of its answers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress
from typing import Any

import pandas as pd

from customers import clock
from customers.catalogue import products
from customers.marketing import eligibility_recheck
from customers.privacy import consents
from customers.reports import recommendation_reasons
from customers.scores import score_details, score_store
from customers.scores.score_store import StoredScore
from serving.api import requested_customers
from serving.runtime import ServerRuntime
from serving.scoring import value

#: Entries of a kept list that are shown.
MAX_ITEMS = 10


def load_latest_scores(runtime: ServerRuntime, customer_key: int) -> dict[str, dict[str, Any]]:
    """What every model said last, by model."""
    latest = score_store.load_customer_scores(runtime.shop, customer_key)
    return {
        name: _version_fields(score) | FORMATTERS[name](runtime, score)
        for name, score in latest.items()
        if name in FORMATTERS
    }


def _version_fields(score: StoredScore) -> dict[str, Any]:
    return {"version": score.version, "as_of": score.as_of}


def _format_churn(runtime: ServerRuntime, score: StoredScore) -> dict[str, Any]:
    return {
        "probability": score.value,
        **recommendation_reasons.without_sensitive_reasons(score.detail, runtime.get_inventory().sensitive_categories),
    }


def _format_timing(runtime: ServerRuntime, score: StoredScore) -> dict[str, Any]:
    return {part: score.detail[part] for part in score.detail if part != "cdf"}


def _format_value(runtime: ServerRuntime, score: StoredScore) -> dict[str, Any]:
    currency = runtime.shop.currency
    return {"expected": value.format_amount(score.value or 0.0, currency), "currency": currency, **score.detail}


def _format_products(runtime: ServerRuntime, score: StoredScore) -> dict[str, Any]:
    hidden = _hidden_from_customer(runtime, score.customer_key, runtime.get_inventory().sensitive_products)
    entries = [entry for entry in score_details.iter_list(score.detail, "any") if entry[1] not in hidden][:MAX_ITEMS]
    names = products.find_ids(runtime.shop, [product for _, product, *_ in entries])
    reason_texts = recommendation_reasons.product_reasons(
        runtime.shop, [(score.customer_key, source, grounds) for *_, source, grounds in entries]
    )
    items = [
        {"rank": rank, "product_id": names[product], "score": probability, "source": source, "reason": reason}
        for rank, ((_, product, probability, source, _), reason) in enumerate(
            zip(entries, reason_texts, strict=True), start=1
        )
    ]
    return {"items": items, "fallback": score.detail["fallback"]}


def _format_offers(runtime: ServerRuntime, score: StoredScore) -> dict[str, Any]:
    """Those of the kept offers that may still be made."""
    currency, offers_by_key = runtime.shop.currency, runtime.get_inventory().catalogue.offers.set_index("offer_key")
    stored_items = [item for item in score.detail["items"] if item[0] in offers_by_key.index]
    pairs = pd.DataFrame({"customer_key": score.customer_key, "offer_key": [key for key, *_ in stored_items]})
    eligible_items = list(compress(stored_items, eligibility_recheck.is_still_eligible(runtime.shop, pairs)))[
        :MAX_ITEMS
    ]
    reason_texts = recommendation_reasons.offer_reasons(
        runtime.shop, [(score.customer_key, reason) for *_, reason in eligible_items]
    )
    items = [
        {
            "rank": rank,
            "offer_id": offers_by_key.at[key, "called"],
            "score": probability,
            "expected_gain": None if gain is None else value.format_amount(gain, currency),
            "reason": reason,
            "expires_at": requested_customers.to_datetime(offers_by_key.at[key, "ends_at"]),
        }
        for rank, ((key, probability, gain, _), reason) in enumerate(
            zip(eligible_items, reason_texts, strict=True), start=1
        )
    ]
    return {"items": items, "fallback": score.detail["fallback"]}


def _format_restock(runtime: ServerRuntime, score: StoredScore) -> dict[str, Any]:
    now, zone = runtime.now(), runtime.shop.zone
    hidden = _hidden_from_customer(runtime, score.customer_key, runtime.get_inventory().sensitive_categories)
    items = [
        {
            "category": category,
            "p": {"7": p7, "14": p14, "28": p28},
            "expected_at": None
            if median_days is None
            else clock.expected_purchase_at(score.as_of, median_days, zone, now=now),
        }
        for category, p7, p14, p28, median_days in score.detail["items"]
        if category not in hidden
    ]
    return {"items": items[:MAX_ITEMS], "fallback": score.detail["fallback"]}


def _hidden_from_customer(runtime: ServerRuntime, customer_key: int, sensitive: frozenset[Any]) -> frozenset[Any]:
    """What of this must not be named to the customer: a consent may have been revoked since it was said."""
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
