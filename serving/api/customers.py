"""One customer: what the shop knows of them, and what the models say, for whoever is talking to them now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from customers import catalogue, profiles, scores
from serving import answers, desk, roles, visits, writeback
from serving.desk import Desk
from serving.problems import Problem
from serving.schemas import (
    ChurnAnswer,
    Depth,
    Id,
    ListName,
    NextPurchaseAnswer,
    Profile,
    RecommendationAnswer,
    RecommendationQuestion,
    Scores,
)

router = APIRouter(prefix="/v1/customers/{customer_id}", tags=["customers"])

CustomerId = Annotated[Id, Path(description='The id of the shop\'s own system, or "source:id".')]
#: Products of the kept list that a profile shows.
SHOWN = 10


@router.get("/recommendations")
def recommendations(
    customer_id: CustomerId,
    list: Annotated[ListName, Query()] = "any",
    n: Annotated[Depth, Query()] = 10,
    categories: Annotated[Iterable[Id], Query(max_length=100)] = (),
) -> RecommendationAnswer:
    """Which products this customer is likeliest to buy next."""
    question = RecommendationQuestion(customer_ids=[customer_id], list=list, n=n, categories=[*categories])
    return answers.recommendations(desk.here(), question)


@router.get("/churn")
def churn(customer_id: CustomerId) -> ChurnAnswer:
    """How likely this customer is to stay away, and why."""
    return answers.churn(desk.here(), [customer_id])


@router.get("/next-purchase")
def next_purchase(customer_id: CustomerId) -> NextPurchaseAnswer:
    """When this customer comes back."""
    return answers.next_purchase(desk.here(), [customer_id])


@router.get("/scores")
def kept_scores(customer_id: CustomerId) -> Scores:
    """What each model last said about this customer, with its version and moment."""
    here = desk.here()
    return Scores(customer_id=customer_id, scores=told(here, _key(here, customer_id)))


@router.get("")
def profile(customer_id: CustomerId) -> Profile:
    """Everything on file; names, addresses and birthdays only for those who serve customers."""
    here = desk.here()
    key = _key(here, customer_id)
    shown = profiles.show(here.shop, customer_id) or {}
    if visits.current().role not in roles.SEE_PERSONAL:
        shown["profile"] = None
    return Profile(**{**shown, "customer_id": customer_id, "scores": told(here, key)})


def told(here: Desk, key: int) -> dict[str, dict[str, Any]]:
    """What every model said last, in the words of its answers."""
    return {name: _told(here, name, score) for name, score in scores.latest(here.shop, key).items()}


def _told(here: Desk, name: str, score: scores.Score) -> dict[str, Any]:
    detail = score.detail
    said = {"version": score.version, "as_of": score.as_of}
    if name == "churn":
        return {**said, "probability": score.value, **detail}
    if name == "recommender":
        return {**said, "items": _items(here, detail), "fallback": detail["fallback"]}
    return {**said, **{part: detail[part] for part in detail if part != "cdf"}}


def _items(here: Desk, detail: dict[str, Any]) -> list[dict[str, Any]]:
    entries = [*writeback.listed(detail, "any")][:SHOWN]
    names = catalogue.ids_of(here.shop, [product for _, product, *_ in entries])
    return [
        {"rank": rank, "product_id": names[product], "score": score, "source": source, "reason": reason}
        for rank, product, score, source, reason in entries
    ]


def _key(here: Desk, customer_id: str) -> int:
    key = profiles.keys_of(here.shop, [customer_id]).get(customer_id)
    if key is None:
        raise Problem(404, "The shop knows no customer by this id; load customers or sales first.")
    return key
