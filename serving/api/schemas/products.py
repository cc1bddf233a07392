"""Request and response schemas for related products and for audiences."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from serving.api.schemas.common import Answer, Channel, Depth, Id, Product, Question, Result

Relation = Literal["similar", "together", "upsell"]


class SimilarQuestion(Question):
    """Request for similar products, complements, or more expensive alternatives.

    Of the shop's merchandising rules only those that exclude products apply: exclusions, stock, minimum margin and
    repurchase.
    """

    product_ids: list[Id] = Field(
        default=[], max_length=100, description="1 to 100 products, or none for those that the customer buys most."
    )
    n: Depth = 10
    how: Relation = Field(
        default="similar", description='"together": complements; "upsell": more expensive alternatives.'
    )
    customer_id: Id | None = Field(
        default=None,
        description="The customer for whom it is; without one, or without consent, no sensitive product is shown.",
    )

    @model_validator(mode="after")
    def _require_product_or_customer(self) -> SimilarQuestion:
        if not self.product_ids and self.customer_id is None:
            raise ValueError("name product_ids, or a customer_id for whose own products it is")
        return self


class AudienceQuestion(Question):
    """Request for the customers most likely to buy products, to buy from categories, or to redeem an offer."""

    product_ids: list[Id] = Field(default=[], max_length=1000, description="Any of these products.")
    categories: list[Id] = Field(default=[], max_length=100, description="Any product of these categories.")
    offer_id: Id | None = Field(default=None, description="This offer, among the customers who are eligible for it.")
    n: Annotated[int, Field(ge=1, le=5000, description="Maximum number of customers.")] = 1000
    channel: Channel | None = Field(default=None, description="Only customers who may be contacted on this channel.")

    @model_validator(mode="after")
    def _require_one_target(self) -> AudienceQuestion:
        if sum(map(bool, (self.product_ids, self.categories, self.offer_id))) != 1:
            raise ValueError("give exactly one of product_ids, categories and offer_id")
        return self


class SimilarResult(BaseModel):
    """The related products of one product."""

    product_id: str
    known: bool = Field(description="Whether this product id exists in the shop.")
    fallback: bool = Field(
        description="Whether these are the best sellers of the shop, because no related product is known."
    )
    items: list[Product] = Field(description="Best first; a score compares within this list only.")
    reason: str | None = Field(description="Why there are fewer than n; null where there are n.")


class SimilarAnswer(Answer):
    """Related products, a result per product, in the order of the request."""

    results: list[SimilarResult]
    customer_known: bool | None = Field(
        description="Whether this customer id exists in the shop; null without a customer_id."
    )
    notes: list[str] = Field(description="Parts of the request that could not be used.")


class AudienceResult(Result):
    """One customer of the audience."""

    rank: int
    score: float = Field(
        description="P(the customer buys any of it within the window), or P(the customer redeems the offer)."
    )
    reason: str


class PassedOver(BaseModel):
    """Customers who are left out of an audience, counted by the first reason why."""

    reason: str
    customers: int


class AudienceAnswer(Answer):
    """The audience, most probable buyers first."""

    results: list[AudienceResult]
    eligible: int = Field(description="How many customers the audience was chosen from.")
    expected_buyers: float = Field(description="How many of the audience are expected to buy: the sum of the scores.")
    expected_lift: float | None = Field(
        description="Expected buyers, as a multiple of those of a random audience of this size."
    )
    window_days: int | None = Field(
        description="The days within which they buy; null for an offer, which is redeemed while it runs."
    )
    left_out: list[PassedOver] = Field(description="The customers who are left out, and why.")
    notes: list[str] = Field(description="Parts of the request that match nothing in this shop.")
    reason: str | None = Field(description="Why there are fewer than n customers; null where there are n.")
