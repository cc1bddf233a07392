"""The shapes of questions and answers: what may be asked, within which limits, and what comes back.

A question says no without repeating what was sent: neither values nor unknown names appear in its errors.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from customers import offers

if TYPE_CHECKING:
    Channel = str
else:
    Channel = Literal[offers.CHANNELS]

ListName = Literal["any", "again", "new"]
Within = Literal["7", "14", "28", "90"]
Band = Literal["low", "medium", "high", "lapsed"]

#: Ids are whatever the shop's other systems say, but one line of text: control characters are nobody's id.
Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
CustomerIds = Annotated[list[Id], Field(min_length=1, max_length=1000, description="1 to 1,000 customers.")]
# Named outside their class, in which `list` is a field.
ProductIds = Annotated[list[Id], Field(max_length=1000, description="Products not to name.")]
OfferIds = Annotated[list[Id], Field(max_length=1000, description="Offers not to make.")]
Categories = Annotated[list[Id], Field(max_length=100, description="Only these categories; empty for all.")]
#: Lists are kept 50 deep.
Depth = Annotated[int, Field(ge=1, le=50, description="How many products at most.")]
OfferDepth = Annotated[int, Field(ge=1, le=50, description="How many offers at most.")]
WithinDays = Annotated[int, Field(ge=1, le=90, description="How many days ahead.")]


class Question(BaseModel):
    """What every question has in common: no unknown fields, and no echo."""

    model_config = ConfigDict(hide_input_in_errors=True, json_schema_extra={"additionalProperties": False})

    @model_validator(mode="before")
    @classmethod
    def _only_known_fields(cls, sent: Any) -> Any:
        """Refuse fields that nobody reads, without their names: a misspelt one would be ignored for ever."""
        if isinstance(sent, dict) and not sent.keys() <= cls.model_fields.keys():
            raise ValueError(f"only these fields are known here: {', '.join(cls.model_fields)}")
        return sent


class CustomersQuestion(Question):
    """Customers, by the ids of the shop's own systems; "source:id" where two systems use the same id."""

    customer_ids: CustomerIds


class QuestionOfNow(CustomersQuestion):
    """Customers as they are now: what was once answered is replayed by a night of its own."""

    at: datetime | None = Field(default=None, description="Answers are for now; only null is known so far.")

    @field_validator("at")
    @classmethod
    def _now_only(cls, at: datetime | None) -> None:
        if at is not None:
            raise ValueError("answers are for now: leave it out; to replay a day run: regulars run --as-of")


class OffersQuestion(QuestionOfNow):
    """Which offers to make, on which channel, and which never."""

    n: OfferDepth = 5
    channel: Channel | None = Field(default=None, description="Only offers that may be made on this channel.")
    exclude_offer_ids: OfferIds = []


class RestockQuestion(CustomersQuestion):
    """Which categories run out within how many days."""

    within_days: WithinDays = 14


class ModelFacts(BaseModel):
    """Which model answered."""

    name: str
    version: str
    trained_at: datetime | None


class Answer(BaseModel):
    """The envelope of every answer."""

    request_id: str
    as_of: datetime = Field(description="What was known before this moment was used.")
    models: list[ModelFacts]
    took_ms: float
    attribution_token: str = Field(description="Send it back with an interaction; it ties it to this.")


class Result(BaseModel):
    """The answer for one customer."""

    customer_id: str
    known: bool = Field(description="Whether the shop knows this customer.")
    fallback: bool = Field(description="Whether this is what holds for customers in general.")
    features_as_of: datetime | None = Field(description="The moment this customer's figures speak of.")


class Product(BaseModel):
    """One product in a list."""

    rank: int
    product_id: str
    score: float
    source: str = Field(description="again, new or popular; explore or pinned where a rule of the shop put it there.")
    reason: str
    expires_at: datetime | None = None


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

    p: dict[Within, float | None] = Field(description="P(purchase within so many days).")
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
