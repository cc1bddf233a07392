"""What every model said last about a customer, in the words of its answers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress
from typing import Any

import pandas as pd

from customers import catalogue, clock, consent, reasons, scores, validity
from customers.scores import Score
from serving import asked, details, spending
from serving.desk import Desk

#: Entries of a kept list that are shown.
SHOWN = 10


def of(here: Desk, key: int) -> dict[str, dict[str, Any]]:
    """What every model said last, by model."""
    found = scores.latest(here.shop, key)
    return {name: _head(score) | WORDS[name](here, score) for name, score in found.items() if name in WORDS}


def _head(score: Score) -> dict[str, Any]:
    return {"version": score.version, "as_of": score.as_of}


def _churn(here: Desk, score: Score) -> dict[str, Any]:
    return {"probability": score.value, **reasons.discreet(score.detail, here.goods().sensitive_categories)}


def _timing(here: Desk, score: Score) -> dict[str, Any]:
    return {part: score.detail[part] for part in score.detail if part != "cdf"}


def _value(here: Desk, score: Score) -> dict[str, Any]:
    currency = here.shop.currency
    return {"expected": spending.text(score.value or 0.0, currency), "currency": currency, **score.detail}


def _products(here: Desk, score: Score) -> dict[str, Any]:
    hidden = _hidden(here, score.customer_key, here.goods().sensitive)
    entries = [entry for entry in details.listed(score.detail, "any") if entry[1] not in hidden][:SHOWN]
    names = catalogue.ids_of(here.shop, [product for _, product, *_ in entries])
    said = reasons.speak(here.shop, [(score.customer_key, source, grounds) for *_, source, grounds in entries])
    items = [
        {"rank": rank, "product_id": names[product], "score": chance, "source": source, "reason": reason}
        for rank, ((_, product, chance, source, _), reason) in enumerate(zip(entries, said, strict=True), start=1)
    ]
    return {"items": items, "fallback": score.detail["fallback"]}


def _offers(here: Desk, score: Score) -> dict[str, Any]:
    """Those of the kept offers that may still be made."""
    currency, book = here.shop.currency, here.goods().book.offers.set_index("offer_key")
    said = [item for item in score.detail["items"] if item[0] in book.index]
    found = pd.DataFrame({"customer_key": score.customer_key, "offer_key": [key for key, *_ in said]})
    kept = list(compress(said, validity.may_be_made(here.shop, found)))[:SHOWN]
    why = reasons.of_offers(here.shop, [(score.customer_key, reason) for *_, reason in kept])
    items = [
        {
            "rank": rank,
            "offer_id": book.at[key, "called"],
            "score": chance,
            "expected_gain": None if gain is None else spending.text(gain, currency),
            "reason": reason,
            "expires_at": asked.moment(book.at[key, "ends_at"]),
        }
        for rank, ((key, chance, gain, _), reason) in enumerate(zip(kept, why, strict=True), start=1)
    ]
    return {"items": items, "fallback": score.detail["fallback"]}


def _restock(here: Desk, score: Score) -> dict[str, Any]:
    now, zone = here.now(), here.shop.zone
    hidden = _hidden(here, score.customer_key, here.goods().sensitive_categories)
    items = [
        {
            "category": category,
            "p": {"7": p7, "14": p14, "28": p28},
            "expected_at": None if wait is None else clock.expected_at(score.as_of, wait, zone, now=now),
        }
        for category, p7, p14, p28, wait in score.detail["items"]
        if category not in hidden
    ]
    return {"items": items[:SHOWN], "fallback": score.detail["fallback"]}


def _hidden(here: Desk, key: int, sensitive: frozenset[Any]) -> frozenset[Any]:
    """What of this must not be named to the customer: a consent may have been revoked since it was said."""
    sees = sensitive and consent.allowed(here.shop, [key], "profiling_sensitive")
    return frozenset() if sees else sensitive


WORDS: dict[str, Callable[[Desk, Score], dict[str, Any]]] = {
    "churn": _churn,
    "timing": _timing,
    "value": _value,
    "recommender": _products,
    "offers": _offers,
    "restock": _restock,
}
