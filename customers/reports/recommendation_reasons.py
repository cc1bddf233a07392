"""Reason texts of recommended products and offers, from the evidence stored with each list item."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import compress
from typing import Any

from customers.catalogue import products
from customers.privacy import consents
from customers.scores.score_details import ChurnDetail
from customers.shop import money
from customers.shop.settings import Shop

#: The reason by source of the product, where there is no evidence; repeat purchases have evidence of their own.
REASONS = {
    "again": "bought before",
    "new": "customers with similar baskets buy it",
    "popular": "sells best in the shop",
    "explore": "something else, to learn what they like",
    "pinned": "the shop puts it first",
    "related": "it is for something that they have not bought yet",
}
#: Two purchases have only one gap, which does not make a usual gap.
MIN_PURCHASES_FOR_GAP = 3

#: The evidence stored beside a product. Source "again": number of purchase days, days since the last and since the
#: first of them. Sources "new" and "related" (an offer): key of the product bought before that it goes with, and days
#: since that purchase.
ReasonEvidence = Sequence[Any]


def product_reasons(shop: Shop, listed: Iterable[tuple[int, str, ReasonEvidence]]) -> list[str]:
    """The reason text of each listed item (customer_key, source, evidence).

    A reason names a sensitive product only for a customer who allows profiling on sensitive products now.
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
    """The reason text of each offer (customer_key, evidence); the evidence is a stored text, or as for "related"."""
    return product_reasons(
        shop,
        [
            (key, "related", [stored_evidence] if isinstance(stored_evidence, str) else stored_evidence)
            for key, stored_evidence in offer_items
        ],
    )


def evidence_reason(source: str, evidence: ReasonEvidence, names: Mapping[int, str]) -> str:
    """The reason text of one item, naming a product by `names`; the caller sees to it that none of them is hidden."""
    return _reason_text(0, source, evidence, names, (), ())


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
    if evidence and isinstance(evidence[0], str):  # stored as text by an earlier version
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
    """'bought 9 times, usually every 12 days, last 14 days ago'.

    `times` is the number of purchase days; `last_days` and `first_days` are days since the last and the first of them.
    """
    if not times >= 1:
        return REASONS["again"]
    if times < MIN_PURCHASES_FOR_GAP or not first_days > last_days:
        return f"bought {format_times(times)}, {'last ' if times > 1 else ''}{format_days_ago(last_days)}"
    gap = (first_days - last_days) / (times - 1)
    gap_text = format_days(gap) if round(gap) > 1 else "day"
    return f"bought {format_times(times)}, usually every {gap_text}, last {format_days_ago(last_days)}"


def bought_with_reason(name: str, last_days: float) -> str:
    """'often bought with SOFT DRINKS, which they bought 3 days ago'."""
    return f"often bought with {name}, which they bought {format_days_ago(last_days)}"


def complement_reason(name: str, last_days: float) -> str:
    """'goes with SOFT DRINKS, bought 3 days ago'."""
    return f"goes with {name}, bought {format_days_ago(last_days)}"


#: The reason text, by source, where it names another product.
RELATED_REASONS = {"new": bought_with_reason, "related": complement_reason}


def lapsed_category_reason(category: str, last_days: float) -> str:
    """'no longer buys dairy, last bought 61 days ago', for a category that the customer used to buy often."""
    return f"no longer buys {category}, last bought {format_days(last_days)} ago"


def without_sensitive_reasons(detail: ChurnDetail, sensitive_categories: Collection[str]) -> ChurnDetail:
    """A stored churn detail without the reasons (and their weights) that name a category which is sensitive by now."""
    reasons = detail.reasons or []
    is_allowed = [not any(f"no longer buys {name}, " in reason for name in sensitive_categories) for reason in reasons]
    return replace(
        detail,
        reasons=list(compress(reasons, is_allowed)) if detail.reasons else detail.reasons,
        weights=list(compress(detail.weights, is_allowed)) if detail.weights else detail.weights,
    )


def format_days(number: float) -> str:
    """'1 day', '12 days'; rounded to whole days."""
    return "1 day" if round(number) == 1 else f"{round(number)} days"


def format_times(number: float) -> str:
    """'once', 'twice', '9 times'."""
    return {1: "once", 2: "twice"}.get(round(number), f"{round(number)} times")


def format_days_ago(number: float) -> str:
    """'today', 'yesterday', '14 days ago'; 'some time ago' where the number is not finite."""
    if not math.isfinite(number):
        return "some time ago"
    return {0: "today", 1: "yesterday"}.get(round(number), f"{round(number)} days ago")


#: The reason of an offer that has no purchase of the customer as evidence.
OFFER_REASONS = {
    "new": REASONS["related"],
    "received": "they received its campaign",
    "popular": "it is made to everybody",
}
NO_OFFERS = "the shop has no offers; load some: regulars load offers FILE"


def product_reason(
    source: str, times: float = math.nan, last_days: float = math.nan, first_days: float = math.nan
) -> str:
    """The reason text of a product by its source; for "again" from purchase days and days since the last and first.

    `times` is the number of purchase days.
    """
    return repeat_reason(times, last_days, first_days) if source == "again" else REASONS[source]


def co_purchase_reason(together: int, followed: int, is_own_evidence: bool) -> str:
    """Why a product complements another: co-purchase counts, or a general text where they are not of its own.

    `together` customers bought both in one basket; `followed` customers first bought it on the next visit.
    """
    if not is_own_evidence:
        return "goes with what sells best of its kind"
    same_basket_text = f"{_customer_count(together)} bought both at once" if together else None
    later_text = f"{_customer_count(followed)} bought it for the first time on the next visit" if followed else None
    return ", ".join(filter(None, (same_basket_text, later_text)))


def alternative_reason(relation: str, category: str | None, price: float, other_price: float, currency: str) -> str:
    """Why a product is an alternative to another: the same category, and both prices where they are known."""
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
    """Why an offer is made; `times` is the number of days on which the customer bought a covered product."""
    return (
        f"bought what it is for {format_times(times)}, last {format_days_ago(last_days)}"
        if times >= 1
        else OFFER_REASONS["new"]
    )
