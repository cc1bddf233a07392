"""Reasons: why a product is on a customer's list, in words, from the few figures of theirs that are kept with it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from typing import Any

from customers.catalogue import products
from customers.privacy import consents
from customers.shop import money
from customers.shop.settings import Shop

#: Why a product is listed, where its source says it all; what was bought before carries figures of its own.
REASONS = {
    "again": "bought before",
    "new": "customers with similar baskets buy it",
    "popular": "sells best in the shop",
    "explore": "something else, to learn what they like",
    "pinned": "the shop puts it first",
    "related": "it is for something that they have not bought yet",
}
#: Two visits have one gap between them, which is not yet what is usual.
MIN_PURCHASES_FOR_GAP = 3

#: What is kept beside a product: of one bought before the days on which it was, and how long ago the last and the
#: first of them are; of a new one, or of an offer on one (related), the key of what they have bought that it goes
#: with, and how long ago that was.
ReasonEvidence = Sequence[Any]


def product_reasons(shop: Shop, listed: Iterable[tuple[int, str, ReasonEvidence]]) -> list[str]:
    """The reason of each listed product, given as customer key, source and grounds.

    A sensitive product is named in a reason only to who allows it now.
    """
    items = list(listed)
    related_keys = {int(evidence[0]) for _, source, evidence in items if _names_product(source, evidence)}
    names = products.load_display_names(shop, related_keys) if related_keys else {}
    sensitive_keys = related_keys & products.load_sensitive(shop)[0] if related_keys else set()
    customers = {
        key for key, source, evidence in items if _names_product(source, evidence) and evidence[0] in sensitive_keys
    }
    allowed_keys = consents.allowed_customers(shop, customers, "profiling_sensitive") if customers else set()
    return [_reason_text(key, source, evidence, names, sensitive_keys, allowed_keys) for key, source, evidence in items]


def offer_reasons(shop: Shop, offer_items: Iterable[tuple[int, str | ReasonEvidence]]) -> list[str]:
    """The reason of each offer made, given as customer key and what is kept of it: words, or what it goes with."""
    return product_reasons(
        shop,
        [
            (key, "related", [stored_evidence] if isinstance(stored_evidence, str) else stored_evidence)
            for key, stored_evidence in offer_items
        ],
    )


def _names_product(source: str, evidence: ReasonEvidence) -> bool:
    return source in RELATED_REASONS and len(evidence) > 1


def _reason_text(
    key: int,
    source: str,
    evidence: ReasonEvidence,
    names: Mapping[int, str],
    sensitive_keys: Collection[int],
    allowed_keys: Collection[int],
) -> str:
    if evidence and isinstance(evidence[0], str):  # kept in words by an earlier version
        return evidence[0]
    if (
        _names_product(source, evidence)
        and (evidence[0] not in sensitive_keys or key in allowed_keys)
        and evidence[0] in names
    ):
        return RELATED_REASONS[source](names[evidence[0]], evidence[1])
    return repeat_reason(*evidence) if source == "again" and evidence else REASONS.get(source, REASONS["popular"])


@lru_cache(maxsize=100_000)
def repeat_reason(times: float, last_days: float, first_days: float = math.nan) -> str:
    """'bought 9 times, usually every 12 days, last 14 days ago'; `times` is days on which they bought it."""
    if not times >= 1:
        return REASONS["again"]
    if times < MIN_PURCHASES_FOR_GAP or not first_days > last_days:
        return f"bought {format_times(times)}, {'last ' if times > 1 else ''}{format_days_ago(last_days)}"
    gap = (first_days - last_days) / (times - 1)
    return f"bought {format_times(times)}, usually every {format_days(gap) if round(gap) > 1 else 'day'}, last {format_days_ago(last_days)}"


def bought_with_reason(name: str, last_days: float) -> str:
    """'often bought with SOFT DRINKS, which they bought 3 days ago'."""
    return f"often bought with {name}, which they bought {format_days_ago(last_days)}"


def complement_reason(name: str, last_days: float) -> str:
    """'goes with SOFT DRINKS, bought 3 days ago'."""
    return f"goes with {name}, bought {format_days_ago(last_days)}"


#: What is said where a reason names another product.
RELATED_REASONS = {"new": bought_with_reason, "related": complement_reason}


def lapsed_category_reason(category: str, last_days: float) -> str:
    """'no longer buys dairy, last bought 61 days ago': of a category that they used to buy often."""
    return f"no longer buys {category}, last bought {format_days(last_days)} ago"


def without_sensitive_reasons(
    stored_answer: Mapping[str, Any], sensitive_categories: Collection[str]
) -> dict[str, Any]:
    """What was kept of churn, without a reason that names a category of which nobody may be told by now."""
    reasons = list(stored_answer.get("reasons") or [])
    is_allowed = [not any(f"no longer buys {name}, " in reason for name in sensitive_categories) for reason in reasons]
    aligned = {name: list(stored_answer[name]) for name in ("reasons", "weights") if stored_answer.get(name)}
    return {**stored_answer, **{name: list(compress(each, is_allowed)) for name, each in aligned.items()}}


def format_days(number: float) -> str:
    """A whole number of days."""
    return "1 day" if round(number) == 1 else f"{round(number)} days"


def format_times(number: float) -> str:
    """How many times."""
    return {1: "once", 2: "twice"}.get(round(number), f"{round(number)} times")


def format_days_ago(number: float) -> str:
    """So many days ago."""
    if not math.isfinite(number):
        return "some time ago"
    return {0: "today", 1: "yesterday"}.get(round(number), f"{round(number)} days ago")


#: Why an offer is made where no purchases of the customer's own speak for it.
OFFER_REASONS = {
    "new": REASONS["related"],
    "received": "they received its campaign",
    "popular": "it is made to everybody",
}
NO_OFFERS = "the shop has no offers; load some: regulars load offers FILE"


def product_reason(
    source: str, times: float = math.nan, last_days: float = math.nan, first_days: float = math.nan
) -> str:
    """Why a product is on a customer's list; `times` is days on which they bought it."""
    return repeat_reason(times, last_days, first_days) if source == "again" else REASONS[source]


def co_purchase_reason(together: int, followed: int, is_own_evidence: bool) -> str:
    """Why a product goes with another: how many customers bought both at once, or it first thing after."""
    if not is_own_evidence:
        return "goes with what sells best of its kind"
    same_basket_text = f"{_customer_count(together)} bought both at once" if together else None
    later_text = f"{_customer_count(followed)} bought it for the first time on the next visit" if followed else None
    return ", ".join(filter(None, (same_basket_text, later_text)))


def alternative_reason(relation: str, category: str | None, price: float, other_price: float, currency: str) -> str:
    """Why a product may be taken instead of another: it is of one kind, and what it and the other go for."""
    text = (
        f"{'dearer, and ' if relation == 'upsell' else ''}of the same kind: {category}"
        if category
        else "bought by like customers"
    )
    if not (price > 0 and other_price > 0):
        return text
    own_amount, other_amount = (f"{amount:.{money.EXPONENTS[currency]}f}" for amount in (price, other_price))
    return f"{text}; {own_amount} instead of {other_amount} {currency}"


def _customer_count(count: int) -> str:
    return f"{count} customer" if count == 1 else f"{count} customers"


@lru_cache(maxsize=100_000)
def offer_reason(times: float, last_days: float) -> str:
    """Why an offer is made; `times` is days on which they bought what it is for."""
    return (
        f"bought what it is for {format_times(times)}, last {format_days_ago(last_days)}"
        if times >= 1
        else OFFER_REASONS["new"]
    )
