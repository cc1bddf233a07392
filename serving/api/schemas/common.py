"""What request and response schemas share."""

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
    def _reject_extra_fields(cls, payload: Any) -> Any:
        """Refuse fields that nobody reads, without their names: a misspelt one would be ignored for ever."""
        if isinstance(payload, dict) and not payload.keys() <= cls.model_fields.keys():
            raise ValueError(f"only these fields are known here: {', '.join(cls.model_fields)}")
        return payload


class CustomersQuestion(Question):
    """Customers, by the ids of the shop's own systems; "source:id" where two systems use the same id."""

    customer_ids: CustomerIds


class CurrentQuestion(CustomersQuestion):
    """Customers as they are now: what was once answered is replayed by a night of its own."""

    at: datetime | None = Field(default=None, description="Answers are for now; only null is known so far.")

    @field_validator("at")
    @classmethod
    def _reject_other_times(cls, at: datetime | None) -> None:
        if at is not None:
            raise ValueError("answers are for now: leave it out; to replay a day run: regulars run --as-of")


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
