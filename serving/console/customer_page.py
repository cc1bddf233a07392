"""One customer on one page: what a colleague wants to see before they pick up the phone.

Everything is asked of the functions that answer over HTTP; a section is there where there is something to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from customers import catalogue, consent, mirror, profiles, scores
from serving import answers
from serving.api import customers
from serving.console import pictures, visiting
from serving.console.pictures import Curve, Strip
from serving.console.visiting import Rhythm
from serving.console.wording import full_name
from serving.desk import Desk
from serving.listings import Profile
from serving.problems import Problem
from serving.schemas import (
    ChurnResult,
    NextPurchaseResult,
    OffersQuestion,
    OffersResult,
    RestockQuestion,
    RestockResult,
    RunningOut,
    ValueResult,
)
from serving.wanted import RecommendationQuestion

Result = TypeVar("Result")

#: Drawings are made for a wide page and for a phone.
WIDE, NARROW = 1040, 340
PRODUCTS, OFFERS, CATEGORIES, ORDERS, INTERACTIONS = 8, 5, 8, 6, 6
WITHIN_DAYS, HARDLY = 14, 0.1
#: Whoever asked for something and waits.
UNSETTLED = (None, "open")


@dataclass(frozen=True, slots=True)
class Visits:
    """The rhythm of visits, and its drawings."""

    rhythm: Rhythm
    wide: Strip
    narrow: Strip


@dataclass(frozen=True, slots=True)
class Return:
    """When they come back, and its drawing where the whole curve is known."""

    answer: NextPurchaseResult
    expected: date | None
    wide: Curve | None
    narrow: Curve | None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A product to suggest, by the name it is sold under."""

    product_id: str
    name: str
    reason: str
    again: bool


@dataclass(frozen=True, slots=True)
class View:
    """The whole page; what is None is left out."""

    profile: Profile
    name: str | None
    profiled: bool
    drift: ChurnResult | None
    back: Return | None
    visits: Visits | None
    worth: ValueResult | None
    products: Sequence[Suggestion]
    offers: OffersResult | None
    restock: Sequence[RunningOut]
    complaints: Sequence[Mapping[str, Any]]
    contacts: Sequence[Mapping[str, Any]]
    orders: Sequence[Mapping[str, Any]]
    channels: Sequence[str]
    told: Sequence[tuple[str, Any]]


def of(desk: Desk, customer_id: str) -> View:
    """The page of one customer."""
    profile = customers.profile(customer_id)
    key = profiles.keys_of(desk.shop, [customer_id])[customer_id]
    profiled = key in consent.allowed(desk.shop, [key], "profiling")
    back = returning(desk, customer_id, key)
    contacts = profile.interactions
    return View(
        profile=profile,
        name=full_name(profile.profile),
        profiled=profiled,
        drift=drift(desk, customer_id),
        back=back,
        visits=visits(desk, key, back.expected if back else None) if profiled else None,
        worth=worth(desk, customer_id),
        products=products(desk, customer_id),
        offers=offers(desk, customer_id),
        restock=restock(desk, customer_id),
        complaints=[each for each in contacts if each["kind"] == "complaint" and each["status"] in UNSETTLED],
        contacts=contacts[:INTERACTIONS],
        orders=profile.orders[:ORDERS],
        channels=consent.channels(desk.shop, [key])[key],
        told=_told(profile),
    )


# A section each ------------------------------------------------------------------------------------------


def drift(desk: Desk, customer_id: str) -> ChurnResult | None:
    """How likely they are to stay away, and why."""
    return _first(lambda: answers.churn(desk, [customer_id]))


def returning(desk: Desk, customer_id: str, key: int) -> Return | None:
    """When they come back; the curve itself is the one that the answer has just written down."""
    answer: NextPurchaseResult | None = _first(lambda: answers.next_purchase(desk, [customer_id]))
    if answer is None:
        return None
    kept = scores.latest(desk.shop, key).get("timing")
    cdf = kept.detail["cdf"] if kept and not answer.fallback else None
    since = answer.features_as_of or desk.now()
    first = since.astimezone(desk.shop.zone).date()
    days = answer.days.model_dump()
    wide, narrow = (
        pictures.curve(cdf, days, first=first, width=width) if cdf else None for width in (WIDE // 2, NARROW)
    )
    return Return(answer, _day_before(answer.expected_at, desk), wide, narrow)


def visits(desk: Desk, key: int, expected: date | None) -> Visits | None:
    """The year's visits, as the ledger has them now."""
    lines = mirror.lines_of(desk.shop, [key])
    hidden = desk.goods().sensitive
    if hidden and not consent.allowed(desk.shop, [key], "profiling_sensitive"):
        lines = lines.filter(pc.invert(pc.is_in(lines["product_key"], pa.array(hidden, pa.int64()))))
    rhythm = visiting.rhythm(lines, zone=desk.shop.zone, today=desk.now().astimezone(desk.shop.zone).date())
    if rhythm is None:
        return None
    return Visits(rhythm, *(pictures.strip(rhythm, width=width, expected=expected) for width in (WIDE, NARROW)))


def worth(desk: Desk, customer_id: str) -> ValueResult | None:
    """What they are expected to spend."""
    return _first(lambda: answers.value(desk, [customer_id]))


def products(desk: Desk, customer_id: str) -> list[Suggestion]:
    """What they are likeliest to buy next."""
    question = RecommendationQuestion(customer_ids=[customer_id], n=PRODUCTS)
    result = _first(lambda: answers.recommendations(desk, question))
    items = result.items if result else []
    keys = catalogue.keys_of(desk.shop, [item.product_id for item in items])
    names = catalogue.names_of(desk.shop, keys.values())
    return [
        Suggestion(item.product_id, names[keys[item.product_id]], item.reason, item.source == "again") for item in items
    ]


def offers(desk: Desk, customer_id: str) -> OffersResult | None:
    """What may be offered them, and what may not and why; None where the shop has no offer at all."""
    question = OffersQuestion(customer_ids=[customer_id], n=OFFERS)
    result: OffersResult | None = _first(lambda: answers.offers(desk, question))
    return result if result and (result.items or result.dropped) else None


def restock(desk: Desk, customer_id: str) -> list[RunningOut]:
    """What they will need again soon; what they hardly will is left out."""
    question = RestockQuestion(customer_ids=[customer_id], within_days=WITHIN_DAYS)
    result: RestockResult | None = _first(lambda: answers.restock(desk, question))
    likely = [category for category in result.items if category.p >= HARDLY] if result else []
    return likely[:CATEGORIES]


def _told(profile: Profile) -> list[tuple[str, Any]]:
    """What else is on file, as far as it may be seen; the name stands at the head of the page."""
    fields = {**(profile.profile or {}), **profile.attributes}
    return [(name, value) for name, value in fields.items() if value and name not in ("given_name", "family_name")]


def _first(ask: Callable[[], Any]) -> Any:
    """The answer for the one customer asked for; None where no model speaks yet."""
    try:
        return ask().results[0]
    except Problem as problem:
        if problem.status != 503:
            raise
        return None


def _day_before(ends: datetime | None, desk: Desk) -> date | None:
    """The day that ends at this instant."""
    return (ends - timedelta(microseconds=1)).astimezone(desk.shop.zone).date() if ends else None
