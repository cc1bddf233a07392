"""Reasons: why a product is on a customer's list, in words, from the few figures of theirs that are kept with it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from typing import Any

from customers import catalogue, consent
from customers.shop import Shop

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
USUAL_FROM = 3

#: What is kept beside a product: of one bought before the days on which it was, and how long ago the last and the
#: first of them are; of a new one, or of an offer on one (related), the key of what they have bought that it goes
#: with, and how long ago that was.
Grounds = Sequence[Any]


def speak(shop: Shop, listed: Iterable[tuple[int, str, Grounds]]) -> list[str]:
    """The reason of each listed product, given as customer key, source and grounds.

    A sensitive product is named in a reason only to who allows it now.
    """
    told = list(listed)
    beside = {int(grounds[0]) for _, source, grounds in told if _names_another(source, grounds)}
    names = catalogue.names_of(shop, beside) if beside else {}
    guarded = beside & catalogue.sensitive(shop)[0] if beside else set()
    customers = {key for key, source, grounds in told if _names_another(source, grounds) and grounds[0] in guarded}
    sees = consent.allowed(shop, customers, "profiling_sensitive") if customers else set()
    return [_reason(key, source, grounds, names, guarded, sees) for key, source, grounds in told]


def of_offers(shop: Shop, made: Iterable[tuple[int, str | Grounds]]) -> list[str]:
    """The reason of each offer made, given as customer key and what is kept of it: words, or what it goes with."""
    return speak(shop, [(key, "related", [kept] if isinstance(kept, str) else kept) for key, kept in made])


def _names_another(source: str, grounds: Grounds) -> bool:
    return source in BESIDE and len(grounds) > 1


def _reason(
    key: int, source: str, grounds: Grounds, names: Mapping[int, str], guarded: Collection[int], sees: Collection[int]
) -> str:
    if grounds and isinstance(grounds[0], str):  # kept in words by an earlier version
        return grounds[0]
    if _names_another(source, grounds) and (grounds[0] not in guarded or key in sees) and grounds[0] in names:
        return BESIDE[source](names[grounds[0]], grounds[1])
    return own(*grounds) if source == "again" and grounds else REASONS.get(source, REASONS["popular"])


@lru_cache(maxsize=100_000)
def own(times: float, last_days: float, first_days: float = math.nan) -> str:
    """'bought 9 times, usually every 12 days, last 14 days ago'; `times` is days on which they bought it."""
    if not times >= 1:
        return REASONS["again"]
    if times < USUAL_FROM or not first_days > last_days:
        return f"bought {often(times)}, {'last ' if times > 1 else ''}{ago(last_days)}"
    gap = (first_days - last_days) / (times - 1)
    return f"bought {often(times)}, usually every {days(gap) if round(gap) > 1 else 'day'}, last {ago(last_days)}"


def beside(name: str, last_days: float) -> str:
    """'often bought with SOFT DRINKS, which they bought 3 days ago'."""
    return f"often bought with {name}, which they bought {ago(last_days)}"


def goes_with(name: str, last_days: float) -> str:
    """'goes with SOFT DRINKS, bought 3 days ago'."""
    return f"goes with {name}, bought {ago(last_days)}"


#: What is said where a reason names another product.
BESIDE = {"new": beside, "related": goes_with}


def left_behind(category: str, last_days: float) -> str:
    """'no longer buys dairy, last bought 61 days ago': of a category that they used to buy often."""
    return f"no longer buys {category}, last bought {days(last_days)} ago"


def discreet(told: Mapping[str, Any], guarded: Collection[str]) -> dict[str, Any]:
    """What was kept of churn, without a reason that names a category of which nobody may be told by now."""
    reasons = list(told.get("reasons") or [])
    whole = [not any(f"no longer buys {name}, " in reason for name in guarded) for reason in reasons]
    aligned = {name: list(told[name]) for name in ("reasons", "weights") if told.get(name)}
    return {**told, **{name: list(compress(each, whole)) for name, each in aligned.items()}}


def days(number: float) -> str:
    """A whole number of days."""
    return "1 day" if round(number) == 1 else f"{round(number)} days"


def often(number: float) -> str:
    """How many times."""
    return {1: "once", 2: "twice"}.get(round(number), f"{round(number)} times")


def ago(number: float) -> str:
    """So many days ago."""
    if not math.isfinite(number):
        return "some time ago"
    return {0: "today", 1: "yesterday"}.get(round(number), f"{round(number)} days ago")
