"""The page of one customer: what a colleague wants to see before a phone call.

Everything comes from the functions behind the HTTP endpoints; a section without content is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from customers.catalogue import products as catalogue_products
from customers.parquet import mirror
from customers.people import lookup
from customers.privacy import consents
from customers.scores import score_details, score_store
from serving.api import customers, predictions
from serving.api.requested_customers import RequestedCustomers, resolve_customers
from serving.api.schemas.predictions import (
    ChurnResult,
    NextPurchaseResult,
    OffersQuestion,
    OffersResult,
    RestockQuestion,
    RestockResult,
    RunningOut,
    ValueResult,
)
from serving.api.schemas.recommendations import RecommendationQuestion
from serving.api.schemas.records import Profile
from serving.console import charts, visit_history
from serving.console.charts import PurchaseCurve, VisitTimeline
from serving.console.formatting import format_full_name
from serving.console.visit_history import VisitHistory
from serving.http.problems import Problem
from serving.runtime import ServerRuntime

ResultT = TypeVar("ResultT")

#: Widths of the charts for a wide page and for a phone.
WIDE_WIDTH, NARROW_WIDTH = 1040, 340
MAX_PRODUCTS, MAX_OFFERS, MAX_CATEGORIES, MAX_ORDERS, MAX_INTERACTIONS = 8, 5, 8, 6, 6
WITHIN_DAYS, MIN_RESTOCK_PROBABILITY = 14, 0.1
#: The states of a complaint that is still open.
OPEN_STATUSES = (None, "open")


@dataclass(frozen=True, slots=True)
class VisitSection:
    """The visit history, and its timeline in two widths."""

    history: VisitHistory
    wide: VisitTimeline
    narrow: VisitTimeline


@dataclass(frozen=True, slots=True)
class NextPurchaseSection:
    """The next-purchase prediction, and its curve in two widths where the whole curve is stored."""

    answer: NextPurchaseResult
    expected_day: date | None
    wide: PurchaseCurve | None
    narrow: PurchaseCurve | None


@dataclass(frozen=True, slots=True)
class ProductSuggestion:
    """A recommended product, with its display name."""

    product_id: str
    name: str
    reason: str
    is_repeat: bool


@dataclass(frozen=True, slots=True)
class CustomerPage:
    """The whole page; a section that is None is left out."""

    profile: Profile
    name: str | None
    is_profiled: bool
    churn: ChurnResult | None
    next_purchase: NextPurchaseSection | None
    visits: VisitSection | None
    value: ValueResult | None
    products: Sequence[ProductSuggestion]
    offers: OffersResult | None
    restock: Sequence[RunningOut]
    complaints: Sequence[Mapping[str, Any]]
    contacts: Sequence[Mapping[str, Any]]
    orders: Sequence[Mapping[str, Any]]
    channels: Sequence[str]
    other_fields: Sequence[tuple[str, Any]]


def load_customer_page(runtime: ServerRuntime, customer_id: str) -> CustomerPage:
    """Load all sections of one customer's page."""
    profile = customers.profile(customer_id)
    key = lookup.find_keys(runtime.shop, [customer_id])[customer_id]
    is_profiled = key in consents.allowed_customers(runtime.shop, [key], "profiling")
    requested = resolve_customers(runtime, [customer_id])
    next_purchase = load_next_purchase(requested, key)
    contacts = profile.interactions
    return CustomerPage(
        profile=profile,
        name=format_full_name(profile.profile),
        is_profiled=is_profiled,
        churn=load_churn(requested),
        next_purchase=next_purchase,
        visits=load_visits(runtime, key, next_purchase.expected_day if next_purchase else None)
        if is_profiled
        else None,
        value=load_value(requested),
        products=load_products(requested),
        offers=load_offers(requested),
        restock=load_restock(requested),
        complaints=[each for each in contacts if each["kind"] == "complaint" and each["status"] in OPEN_STATUSES],
        contacts=contacts[:MAX_INTERACTIONS],
        orders=profile.orders[:MAX_ORDERS],
        channels=consents.allowed_channels(runtime.shop, [key])[key],
        other_fields=_other_fields(profile),
    )


# Sections ------------------------------------------------------------------------------------------------


def load_churn(requested: RequestedCustomers) -> ChurnResult | None:
    """The churn prediction with reasons; None without a champion."""
    return _first_result(lambda: predictions.answer_churn(requested))


def load_next_purchase(requested: RequestedCustomers, key: int) -> NextPurchaseSection | None:
    """The next-purchase prediction; its curve is read from the score that the prediction has just stored."""
    answer: NextPurchaseResult | None = _first_result(lambda: predictions.answer_next_purchase(requested))
    if answer is None:
        return None
    runtime = requested.runtime
    stored_score = score_store.load_customer_scores(runtime.shop, key).get("timing")
    cdf = score_details.decode_timing(stored_score.detail).cdf if stored_score and not answer.fallback else None
    as_of = answer.features_as_of or runtime.now()
    first_day = as_of.astimezone(runtime.shop.zone).date()
    days = answer.days.model_dump()
    wide, narrow = (
        charts.draw_purchase_curve(cdf, days, first=first_day, width=width) if cdf else None
        for width in (WIDE_WIDTH // 2, NARROW_WIDTH)
    )
    return NextPurchaseSection(answer, _last_day_before(answer.expected_at, runtime), wide, narrow)


def load_visits(runtime: ServerRuntime, key: int, expected_day: date | None) -> VisitSection | None:
    """The visit history in the current ledger, and its timelines; None without a purchase."""
    lines = mirror.load_lines(runtime.shop, [key])
    hidden = runtime.get_inventory().sensitive_products
    if hidden and not consents.allowed_customers(runtime.shop, [key], "profiling_sensitive"):
        lines = lines.filter(pc.invert(pc.is_in(lines["product_key"], pa.array(hidden, pa.int64()))))
    history = visit_history.build_visit_history(
        lines, zone=runtime.shop.zone, today=runtime.now().astimezone(runtime.shop.zone).date()
    )
    if history is None:
        return None
    return VisitSection(
        history,
        *(
            charts.draw_visit_timeline(history, width=width, expected_day=expected_day)
            for width in (WIDE_WIDTH, NARROW_WIDTH)
        ),
    )


def load_value(requested: RequestedCustomers) -> ValueResult | None:
    """The expected spend; None without a champion."""
    return _first_result(lambda: predictions.answer_value(requested))


def load_products(requested: RequestedCustomers) -> list[ProductSuggestion]:
    """The products that the customer is most likely to buy next."""
    question = RecommendationQuestion(customer_ids=[*requested.customer_ids], n=MAX_PRODUCTS)
    result = _first_result(lambda: predictions.answer_recommendations(requested, question))
    items, shop = result.items if result else [], requested.runtime.shop
    keys = catalogue_products.find_keys(shop, [item.product_id for item in items])
    names = catalogue_products.load_display_names(shop, keys.values())
    return [
        ProductSuggestion(item.product_id, names[keys[item.product_id]], item.reason, item.source == "again")
        for item in items
    ]


def load_offers(requested: RequestedCustomers) -> OffersResult | None:
    """The eligible offers, and the others with the reason why not; None where the shop has no offers."""
    question = OffersQuestion(customer_ids=[*requested.customer_ids], n=MAX_OFFERS)
    result: OffersResult | None = _first_result(lambda: predictions.answer_offers(requested, question))
    return result if result and (result.items or result.dropped) else None


def load_restock(requested: RequestedCustomers) -> list[RunningOut]:
    """The categories that the customer is likely to buy again soon, with at least MIN_RESTOCK_PROBABILITY."""
    question = RestockQuestion(customer_ids=[*requested.customer_ids], within_days=WITHIN_DAYS)
    result: RestockResult | None = _first_result(lambda: predictions.answer_restock(requested, question))
    likely = [category for category in result.items if category.p >= MIN_RESTOCK_PROBABILITY] if result else []
    return likely[:MAX_CATEGORIES]


def _other_fields(profile: Profile) -> list[tuple[str, Any]]:
    """The other stored fields that the role may see; the name is in the heading of the page."""
    fields = {**(profile.profile or {}), **profile.attributes}
    return [(name, value) for name, value in fields.items() if value and name not in ("given_name", "family_name")]


def _first_result(answer: Callable[[], Any]) -> Any:
    """The result of the only requested customer; None where the model has no champion yet (503)."""
    try:
        return answer().results[0]
    except Problem as problem:
        if problem.status != 503:
            raise
        return None


def _last_day_before(end_at: datetime | None, runtime: ServerRuntime) -> date | None:
    """The local day that ends at this time."""
    return (end_at - timedelta(microseconds=1)).astimezone(runtime.shop.zone).date() if end_at else None
