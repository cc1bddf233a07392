"""The shapes of questions and answers: what may be asked, within which limits, and what comes back.

A question says no without repeating what was sent: neither values nor unknown names appear in its errors.
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
    """Which offers to make, on which channel, and which never."""

    n: OfferDepth = 5
    channel: Channel | None = Field(default=None, description="Only offers that may be made on this channel.")
    exclude_offer_ids: OfferIds = []


class RestockQuestion(CustomersQuestion):
    """Which categories run out within how many days."""

    within_days: WithinDays = 14


class ChurnResult(Result):
    """How likely it is that no purchase follows within the horizon."""

    probability: float
    horizon_days: int
    band: Band
    reasons: list[str]


class ChurnAnswer(Answer):
    """Who is drifting away, a result a customer, in the order asked."""

    results: list[ChurnResult]


class Days(BaseModel):
    """Days until one in ten, half, and nine in ten such customers have come; null beyond what can be said."""

    p10: int | None
    p50: int | None
    p90: int | None


class NextPurchaseResult(Result):
    """When they come back."""

    p: dict[HorizonDays, float | None] = Field(description="P(purchase within so many days).")
    days: Days
    expected_at: datetime | None = Field(description="By when a purchase is as likely as not.")


class NextPurchaseAnswer(Answer):
    """When they come back, a result a customer, in the order asked."""

    results: list[NextPurchaseResult]


class Offer(BaseModel):
    """One offer that may be made."""

    rank: int
    offer_id: str
    campaign_id: str | None
    score: float = Field(description="P(this customer redeems it).")
    expected_gain: str | None = Field(description="What it is expected to bring: score x what is left of the price.")
    gain_basis: str | None = Field(description="What was taken off the price; null where no price is known.")
    currency: str
    source: Literal["again", "new", "related", "popular"]
    reason: str
    expires_at: datetime


class Dropped(BaseModel):
    """One offer that may not be made, and the first reason why."""

    offer_id: str
    reason: str


class OffersResult(Result):
    """The offers, best first, and those that were dropped."""

    items: list[Offer]
    dropped: list[Dropped] = Field(description="Those nearest to being made first. All of them where one customer is "
                                   "asked for; where several are, the first 1,000 of each, and fewer (at least 20) "
                                   "where that would be more than 20,000 in all.")  # fmt: skip
    dropped_count: int = Field(description="How many offers were dropped in all.")
    nothing: str | None = Field(description="Where no offer may be made: why, and how many fall to each reason.")


class OffersAnswer(Answer):
    """Which offers to make, a result a customer, in the order asked."""

    results: list[OffersResult]


class ValueResult(Result):
    """What they are expected to spend within the horizon."""

    expected: str
    currency: str
    horizon_days: int


class ValueAnswer(Answer):
    """What they will be worth, a result a customer, in the order asked."""

    results: list[ValueResult]


class RunningOut(BaseModel):
    """One category that a customer will need again."""

    category: str
    p: float = Field(description="P(they buy of it within the days asked for).")
    expected_at: datetime | None = Field(description="By when a purchase is as likely as not.")
    reason: str = Field(description="How often they bought of it, and when last.")


class RestockResult(Result):
    """The categories, likeliest first."""

    items: list[RunningOut]


class RestockAnswer(Answer):
    """What runs out, a result a customer, in the order asked."""

    results: list[RestockResult]
