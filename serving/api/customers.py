"""Endpoints about one customer: the stored profile, the latest scores, and predictions as of now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from customers.people import lookup
from customers.reports import customer_view
from serving import runtime
from serving.api import latest_scores, predictions
from serving.api.requested_customers import RequestedCustomers, resolve_customers
from serving.api.schemas.common import Channel, Depth, Id, ListName, OfferDepth, WithinDays
from serving.api.schemas.predictions import (
    ChurnAnswer,
    NextPurchaseAnswer,
    OffersAnswer,
    OffersQuestion,
    RestockAnswer,
    RestockQuestion,
    ValueAnswer,
)
from serving.api.schemas.recommendations import (
    ExploreShare,
    InStockOnly,
    MaxPerCategory,
    MinMargin,
    RecommendationAnswer,
    RecommendationQuestion,
    Seed,
)
from serving.api.schemas.records import Profile, Scores
from serving.http import request_context, routes
from serving.http.problems import Problem
from serving.runtime import ServerRuntime


def reject_unknown_parameters(request: Request) -> None:
    """Reject unknown query parameters, which would be ignored, as a misspelt one is; their names are not repeated.

    Raises Problem (422) with the names that are accepted.
    """
    accepted = [field.alias for field in request.scope["route"].dependant.query_params]
    if not request.query_params.keys() <= set(accepted):
        detail = f"only these are known here: {', '.join(accepted)}" if accepted else "there are none here"
        raise Problem(422, errors=[{"parameter": "", "detail": detail}])


router = APIRouter(
    prefix="/v1/customers/{customer_id}", tags=["customers"], dependencies=[Depends(reject_unknown_parameters)]
)

#: Fields of an interaction that contain free text.
FREE_TEXT_FIELDS = {"text", "private", "attributes"}

CustomerId = Annotated[Id, Path(description='The customer id of the shop\'s own system, or "source:id".')]


@router.get("/recommendations")
def recommendations(
    customer_id: CustomerId,
    list: Annotated[ListName, Query()] = "any",
    n: Annotated[Depth, Query()] = 10,
    categories: Annotated[Sequence[Id], Query(max_length=100)] = (),
    exclude_product_ids: Annotated[Sequence[Id], Query(max_length=1000)] = (),
    exclude_categories: Annotated[Sequence[Id], Query(max_length=100)] = (),
    exclude_departments: Annotated[Sequence[Id], Query(max_length=100)] = (),
    in_stock_only: Annotated[InStockOnly, Query()] = None,
    min_margin: Annotated[MinMargin, Query()] = None,
    pin: Annotated[Sequence[Id] | None, Query(max_length=100)] = None,
    max_per_category: Annotated[MaxPerCategory, Query()] = None,
    explore: Annotated[ExploreShare, Query()] = None,
    seed: Annotated[Seed, Query()] = None,
) -> RecommendationAnswer:
    """The products that this customer is most likely to buy next. For boosts use POST /v1/recommendations."""
    question = RecommendationQuestion(
        customer_ids=[customer_id], list=list, n=n, categories=[*categories],
        exclude_product_ids=[*exclude_product_ids], exclude_categories=[*exclude_categories],
        exclude_departments=[*exclude_departments], in_stock_only=in_stock_only, min_margin=min_margin,
        pin=None if pin is None else [*pin], max_per_category=max_per_category, explore=explore, seed=seed,
    )  # fmt: skip
    return predictions.answer_recommendations(_resolve(customer_id), question)


@router.get("/offers")
def offers(
    customer_id: CustomerId,
    n: Annotated[OfferDepth, Query()] = 5,
    channel: Annotated[Channel | None, Query(description="Only offers that are eligible on this channel.")] = None,
) -> OffersAnswer:
    """The eligible offers for this customer, best first, and why each other offer is not eligible."""
    question = OffersQuestion(customer_ids=[customer_id], n=n, channel=channel)
    return predictions.answer_offers(_resolve(customer_id), question)


@router.get("/churn")
def churn(customer_id: CustomerId) -> ChurnAnswer:
    """The probability that this customer buys nothing within the churn horizon, with reasons."""
    return predictions.answer_churn(_resolve(customer_id))


@router.get("/next-purchase")
def next_purchase(customer_id: CustomerId) -> NextPurchaseAnswer:
    """When this customer is expected to buy next."""
    return predictions.answer_next_purchase(_resolve(customer_id))


@router.get("/value")
def value(customer_id: CustomerId) -> ValueAnswer:
    """The expected spend of this customer within the value horizon."""
    return predictions.answer_value(_resolve(customer_id))


@router.get("/restock")
def restock(customer_id: CustomerId, within_days: Annotated[WithinDays, Query()] = 14) -> RestockAnswer:
    """The categories that this customer is likely to buy again, and when."""
    question = RestockQuestion(customer_ids=[customer_id], within_days=within_days)
    return predictions.answer_restock(_resolve(customer_id), question)


@router.get("/scores", name="kept_scores")
def stored_scores(customer_id: CustomerId) -> Scores:
    """The latest stored score of each model for this customer, with model version and as_of time."""
    server_runtime = runtime.get_runtime()
    return Scores(
        customer_id=customer_id,
        scores=latest_scores.load_latest_scores(server_runtime, _customer_key(server_runtime, customer_id)),
    )


@router.get("")
def profile(customer_id: CustomerId) -> Profile:
    """The stored profile. Names, addresses, birthdays and message texts are shown to the roles admin and agent only."""
    server_runtime = runtime.get_runtime()
    key = _customer_key(server_runtime, customer_id)
    record = customer_view.load_customer_view(server_runtime.shop, customer_id) or {}
    if request_context.current().role not in routes.PERSONAL_DATA_ROLES:
        record["profile"] = None
        record["interactions"] = [_without_free_text(entry) for entry in record["interactions"]]
    return Profile(
        **{**record, "customer_id": customer_id, "scores": latest_scores.load_latest_scores(server_runtime, key)}
    )


def unknown_customer_problem() -> Problem:
    """The problem for an unknown customer id (404)."""
    return Problem(404, "The shop knows no customer by this id; load customers or sales first.")


def _without_free_text(entry: dict[str, Any]) -> dict[str, Any]:
    """An interaction without its free text."""
    return {**entry, **dict.fromkeys(FREE_TEXT_FIELDS & entry.keys())}


def _resolve(customer_id: str) -> RequestedCustomers:
    return resolve_customers(runtime.get_runtime(), [customer_id])


def _customer_key(runtime: ServerRuntime, customer_id: str) -> int:
    key = lookup.find_keys(runtime.shop, [customer_id]).get(customer_id)
    if key is None:
        raise unknown_customer_problem()
    return key
