"""Types and base classes that request and response schemas share."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from customers.ledger import interactions

if TYPE_CHECKING:
    Channel = str
else:
    Channel = Literal[interactions.CHANNELS]

ListName = Literal["any", "again", "new"]
HorizonDays = Literal["7", "14", "28", "90"]

MAX_ID_LENGTH, MAX_CUSTOMERS = 200, 10_000

#: Ids of the shop's other systems: any text of one line, without control characters.
Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[^\x00-\x1f\x7f]+$")]
CustomerIds = Annotated[
    list[Id], Field(min_length=1, max_length=MAX_CUSTOMERS, description=f"1 to {MAX_CUSTOMERS:,} customers.")
]
# Defined outside the classes, one of which has a field called `list`.
ProductIds = Annotated[list[Id], Field(max_length=1000, description="Products to leave out.")]
OfferIds = Annotated[list[Id], Field(max_length=1000, description="Offers to leave out.")]
Categories = Annotated[list[Id], Field(max_length=100, description="Only these categories; empty for all.")]
#: Stored lists have at most 50 entries.
Depth = Annotated[int, Field(ge=1, le=50, description="Maximum number of products.")]
OfferDepth = Annotated[int, Field(ge=1, le=50, description="Maximum number of offers.")]
WithinDays = Annotated[int, Field(ge=1, le=90, description="Days from now within which the purchase is expected.")]


class Question(BaseModel):
    """Base class of requests: unknown fields are rejected, and errors do not repeat the input."""

    model_config = ConfigDict(hide_input_in_errors=True, json_schema_extra={"additionalProperties": False})

    @model_validator(mode="before")
    @classmethod
    def _reject_extra_fields(cls, payload: Any) -> Any:
        """Reject unknown fields, which would be ignored, as a misspelt one is; their names are not repeated."""
        if isinstance(payload, dict) and not payload.keys() <= cls.model_fields.keys():
            raise ValueError(f"only these fields are known here: {', '.join(cls.model_fields)}")
        return payload


class CustomersQuestion(Question):
    """Customers, by the ids of the shop's own systems, or "source:id" where two systems use the same id."""

    customer_ids: CustomerIds


class CurrentQuestion(CustomersQuestion):
    """Customers as they are now; predictions as of an earlier time come from: regulars run --as-of."""

    at: datetime | None = Field(default=None, description="Predictions are for now; only null is accepted.")

    @field_validator("at")
    @classmethod
    def _reject_other_times(cls, at: datetime | None) -> None:
        if at is not None:
            raise ValueError("answers are for now: leave it out; to score a past day run: regulars run --as-of")


class ModelFacts(BaseModel):
    """The model that made the predictions."""

    name: str
    version: str
    trained_at: datetime | None


class DegradedFacts(BaseModel):
    """Why the answer is not of the present, and how old what it uses is."""

    model_config = ConfigDict(from_attributes=True)

    reason: str
    features_as_of: datetime
    age_seconds: float


class Answer(BaseModel):
    """The fields around every response."""

    request_id: str
    as_of: datetime = Field(description="Only data from before this time was used.")
    models: list[ModelFacts]
    took_ms: float
    attribution_token: str = Field(
        description="Send it with a later interaction, to link the interaction to this response."
    )
    degraded: DegradedFacts | None = Field(
        default=None,
        exclude_if=lambda degraded: degraded is None,
        description="Only while a store is away: the answer is of the features of the last nightly run.",
    )


class Result(BaseModel):
    """The result for one customer."""

    customer_id: str
    known: bool = Field(description="Whether this customer id exists in the shop.")
    fallback: bool = Field(description="Whether this is the population average, not a prediction for this customer.")
    features_as_of: datetime | None = Field(description="The time as of which this customer's features hold.")


class Product(BaseModel):
    """One product in a list."""

    rank: int
    product_id: str
    score: float
    source: str = Field(description="again, new or popular; explore or pinned where a merchandising rule put it there.")
    reason: str
    expires_at: datetime | None = None
