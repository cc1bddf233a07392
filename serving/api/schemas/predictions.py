"""Request and response schemas of the prediction endpoints.

Validation errors do not repeat what was sent: neither values nor unknown names appear in them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from customers.shop.retention_costs import Band
from serving.api.schemas.common import (
    Answer,
    Channel,
    CurrentQuestion,
    CustomersQuestion,
    HorizonDays,
    OfferDepth,
    OfferIds,
    Result,
    WithinDays,
)


class OffersQuestion(CurrentQuestion):
    """Request for offers: how many, on which channel, and which to leave out."""

    n: OfferDepth = 5
    channel: Channel | None = Field(default=None, description="Only offers that are eligible on this channel.")
    exclude_offer_ids: OfferIds = Field(default=[])


class RestockQuestion(CustomersQuestion):
    """Request for the categories that customers are likely to buy again within some days."""

    within_days: WithinDays = 14


class ChurnResult(Result):
    """P(no purchase within the horizon) of one customer, with reasons."""

    probability: float
    horizon_days: int
    band: Band
    reasons: list[str]


class ChurnAnswer(Answer):
    """Churn predictions, a result per customer, in the order of the request."""

    results: list[ChurnResult]


class Days(BaseModel):
    """Days until 10 %, 50 % and 90 % of such customers have bought again; null beyond the predicted days."""

    p10: int | None
    p50: int | None
    p90: int | None


class NextPurchaseResult(Result):
    """When one customer is expected to buy next."""

    p: dict[HorizonDays, float | None] = Field(description="P(purchase within this many days).")
    days: Days
    expected_at: datetime | None = Field(description="The time by which the probability of a purchase reaches 0.5.")


class NextPurchaseAnswer(Answer):
    """Next purchases, a result per customer, in the order of the request."""

    results: list[NextPurchaseResult]


class Offer(BaseModel):
    """One eligible offer."""

    rank: int
    offer_id: str
    campaign_id: str | None
    score: float = Field(description="P(this customer redeems the offer).")
    expected_gain: str | None = Field(description="The expected gain: score x what remains of the price.")
    gain_basis: str | None = Field(description="What the gain subtracts from the price; null where no price is known.")
    currency: str
    source: Literal["again", "new", "related", "popular"]
    reason: str
    expires_at: datetime


class Dropped(BaseModel):
    """One offer that is not eligible, and the first reason why."""

    offer_id: str
    reason: str


class OffersResult(Result):
    """The eligible offers for one customer, best first, and those that are not eligible."""

    items: list[Offer]
    dropped: list[Dropped] = Field(
        description="Offers that are not eligible, the nearest to eligible first. All of them in a request about one "
        "customer; about several, the first 1,000 of each, and fewer (at least 20) where that would be more than "
        "20,000 in all."
    )
    dropped_count: int = Field(description="How many offers are not eligible in all.")
    nothing: str | None = Field(description="Where no offer is eligible: why, and how many offers have each reason.")


class OffersAnswer(Answer):
    """Offers, a result per customer, in the order of the request."""

    results: list[OffersResult]


class ValueResult(Result):
    """The expected spend of one customer within the horizon."""

    expected: str
    currency: str
    horizon_days: int


class ValueAnswer(Answer):
    """Expected spend, a result per customer, in the order of the request."""

    results: list[ValueResult]


class RunningOut(BaseModel):
    """One category that a customer is likely to buy again."""

    category: str
    p: float = Field(description="P(the customer buys from it within the requested days).")
    expected_at: datetime | None = Field(description="The time by which the probability of a purchase reaches 0.5.")
    reason: str = Field(description="How often the customer bought from it, and when last.")


class RestockResult(Result):
    """The categories of one customer, most probable first."""

    items: list[RunningOut]


class RestockAnswer(Answer):
    """Categories to restock, a result per customer, in the order of the request."""

    results: list[RestockResult]
