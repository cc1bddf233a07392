"""One customer: what the shop knows of them, and what the models say, for whoever is talking to them now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from customers import profiles
from serving import answers, desk, roles, visits
from serving.api import told
from serving.desk import Desk
from serving.listings import Profile, Scores
from serving.problems import Problem
from serving.schemas import (
    Channel,
    ChurnAnswer,
    Depth,
    Id,
    ListName,
    NextPurchaseAnswer,
    OfferDepth,
    OffersAnswer,
    OffersQuestion,
    RestockAnswer,
    RestockQuestion,
    ValueAnswer,
    WithinDays,
)
from serving.wanted import (
    InStockOnly,
    LeastMargin,
    MostOfOne,
    RecommendationAnswer,
    RecommendationQuestion,
    Seed,
    Share,
)


def only_known(request: Request) -> None:
    """Refuse parameters that nobody reads, without their names: a misspelt one would be ignored for ever."""
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    if not request.query_params.keys() <= set(known):
        said = f"only these are known here: {', '.join(known)}" if known else "there are none here"
        raise Problem(422, errors=[{"parameter": "", "detail": said}])


router = APIRouter(prefix="/v1/customers/{customer_id}", tags=["customers"], dependencies=[Depends(only_known)])

#: Parts of a contact in the words of those who spoke.
SPOKEN = {"text", "private", "attributes"}

CustomerId = Annotated[Id, Path(description='The id of the shop\'s own system, or "source:id".')]


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
    min_margin: Annotated[LeastMargin, Query()] = None,
    pin: Annotated[Sequence[Id] | None, Query(max_length=100)] = None,
    max_per_category: Annotated[MostOfOne, Query()] = None,
    explore: Annotated[Share, Query()] = None,
    seed: Annotated[Seed, Query()] = None,
) -> RecommendationAnswer:
    """Which products this customer is likeliest to buy next; with boosts: POST /v1/recommendations."""
    question = RecommendationQuestion(
        customer_ids=[customer_id], list=list, n=n, categories=[*categories],
        exclude_product_ids=[*exclude_product_ids], exclude_categories=[*exclude_categories],
        exclude_departments=[*exclude_departments], in_stock_only=in_stock_only, min_margin=min_margin,
        pin=None if pin is None else [*pin], max_per_category=max_per_category, explore=explore, seed=seed,
    )  # fmt: skip
    return answers.recommendations(desk.here(), question)


@router.get("/offers")
def offers(
    customer_id: CustomerId,
    n: Annotated[OfferDepth, Query()] = 5,
    channel: Annotated[Channel | None, Query(description="Only offers that may be made on this channel.")] = None,
) -> OffersAnswer:
    """Which offers to make to this customer, and why not the others."""
    return answers.offers(desk.here(), OffersQuestion(customer_ids=[customer_id], n=n, channel=channel))


@router.get("/churn")
def churn(customer_id: CustomerId) -> ChurnAnswer:
    """How likely this customer is to stay away, and why."""
    return answers.churn(desk.here(), [customer_id])


@router.get("/next-purchase")
def next_purchase(customer_id: CustomerId) -> NextPurchaseAnswer:
    """When this customer comes back."""
    return answers.next_purchase(desk.here(), [customer_id])


@router.get("/value")
def value(customer_id: CustomerId) -> ValueAnswer:
    """What this customer is expected to spend."""
    return answers.value(desk.here(), [customer_id])


@router.get("/restock")
def restock(customer_id: CustomerId, within_days: Annotated[WithinDays, Query()] = 14) -> RestockAnswer:
    """What this customer will need again, and when."""
    return answers.restock(desk.here(), RestockQuestion(customer_ids=[customer_id], within_days=within_days))


@router.get("/scores")
def kept_scores(customer_id: CustomerId) -> Scores:
    """What each model last said about this customer, with its version and moment."""
    here = desk.here()
    return Scores(customer_id=customer_id, scores=told.of(here, _key(here, customer_id)))


@router.get("")
def profile(customer_id: CustomerId) -> Profile:
    """Everything on file; names, addresses, birthdays and what was said only for those who serve customers."""
    here = desk.here()
    key = _key(here, customer_id)
    shown = profiles.show(here.shop, customer_id) or {}
    if visits.current().role not in roles.SEE_PERSONAL:
        shown["profile"] = None
        shown["interactions"] = [_impersonal(entry) for entry in shown["interactions"]]
    return Profile(**{**shown, "customer_id": customer_id, "scores": told.of(here, key)})


def unknown() -> Problem:
    """Said of an id that is nobody's."""
    return Problem(404, "The shop knows no customer by this id; load customers or sales first.")


def _impersonal(entry: dict[str, Any]) -> dict[str, Any]:
    """A contact without what was said in it."""
    return {**entry, **dict.fromkeys(SPOKEN & entry.keys())}


def _key(here: Desk, customer_id: str) -> int:
    key = profiles.keys_of(here.shop, [customer_id]).get(customer_id)
    if key is None:
        raise unknown()
    return key
