"""Reasons in words: why a product or an offer is on a customer's list, from that customer's own figures.

Every sentence states figures the shop can look up; none repeats what the model guessed.
"""

from __future__ import annotations

import math
from functools import lru_cache

from customers import money
from customers.reasons import REASONS, own
from customers.reasons import ago as _ago
from customers.reasons import often as _times

#: Why an offer is made where no purchases of the customer's own speak for it.
OFFERS = {
    "new": REASONS["related"],
    "received": "they received its campaign",
    "popular": "it is made to everybody",
}
NO_OFFERS = "the shop has no offers; load some: regulars load offers FILE"


def why_product(source: str, times: float = math.nan, last_days: float = math.nan, first_days: float = math.nan) -> str:
    """Why a product is on a customer's list; `times` is days on which they bought it."""
    return own(times, last_days, first_days) if source == "again" else REASONS[source]


def why_together(together: int, followed: int, own: bool) -> str:
    """Why a product goes with another: how many customers bought both at once, or it first thing after."""
    if not own:
        return "goes with what sells best of its kind"
    at_once = f"{_customers(together)} bought both at once" if together else None
    after = f"{_customers(followed)} bought it for the first time on the next visit" if followed else None
    return ", ".join(filter(None, (at_once, after)))


def why_instead(how: str, kind: str | None, price: float, other_price: float, currency: str) -> str:
    """Why a product may be taken instead of another: it is of one kind, and what it and the other go for."""
    said = (
        f"{'dearer, and ' if how == 'upsell' else ''}of the same kind: {kind}" if kind else "bought by like customers"
    )
    if not (price > 0 and other_price > 0):
        return said
    instead, of = (f"{amount:.{money.EXPONENTS[currency]}f}" for amount in (price, other_price))
    return f"{said}; {instead} instead of {of} {currency}"


def _customers(count: int) -> str:
    return f"{count} customer" if count == 1 else f"{count} customers"


@lru_cache(maxsize=100_000)
def why_offer(times: float, last_days: float) -> str:
    """Why an offer is made; `times` is days on which they bought what it is for."""
    return f"bought what it is for {_times(times)}, last {_ago(last_days)}" if times >= 1 else OFFERS["new"]
