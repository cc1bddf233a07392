"""Inquiries: the shapes of questions about products, what goes with them and who would buy them, and of the answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from serving.api.schemas.common import Answer, Channel, Depth, Id, Product, Question, Result

Relation = Literal["similar", "together", "upsell"]


class SimilarQuestion(Question):
    """What goes with these products, stands in for them, or is dearer of their kind.

    Of the shop's rules only those hold that leave products out: exclusions, stock, least margin, and repurchase.
    """

    product_ids: list[Id] = Field(
        default=[], max_length=100, description="1 to 100 products; or none, for a customer's own, those they buy most."
    )
    n: Depth = 10
    how: Relation = Field(default="similar", description='"together" goes with it, "upsell" is dearer of its kind.')
    customer_id: Id | None = Field(default=None, description="For whom it is: without one, and without their "
                                   "consent, nothing sensitive is shown.")  # fmt: skip

    @model_validator(mode="after")
    def _require_product_or_customer(self) -> SimilarQuestion:
        if not self.product_ids and self.customer_id is None:
            raise ValueError("name product_ids, or a customer_id for whose own products it is")
        return self


class AudienceQuestion(Question):
    """Who is likeliest to buy any of these products, of these categories, or to redeem this offer."""

    product_ids: list[Id] = Field(default=[], max_length=1000, description="Any of these products.")
    categories: list[Id] = Field(default=[], max_length=100, description="Any product of these categories.")
    offer_id: Id | None = Field(default=None, description="This offer, among those to whom it may be made.")
    n: Annotated[int, Field(ge=1, le=5000, description="How many customers at most.")] = 1000
    channel: Channel | None = Field(default=None, description="Only who may be contacted on this channel.")

    @model_validator(mode="after")
    def _require_one_target(self) -> AudienceQuestion:
        if sum(map(bool, (self.product_ids, self.categories, self.offer_id))) != 1:
            raise ValueError("give exactly one of product_ids, categories and offer_id")
        return self


class SimilarResult(BaseModel):
    """The companions of one product."""

    product_id: str
    known: bool = Field(description="Whether the shop knows this product.")
    fallback: bool = Field(description="Whether this is what sells in the shop, nothing being known of it.")
    items: list[Product] = Field(description="Best first; a score compares within this list only.")
    reason: str | None = Field(description="Where fewer than n were found: why.")


class SimilarAnswer(Answer):
    """What goes with products, a result a product, in the order asked."""

    results: list[SimilarResult]
    customer_known: bool | None = Field(description="Whether the shop knows this customer; null where none is named.")
    notes: list[str] = Field(description="What could not be followed.")


class AudienceResult(Result):
    """One customer of the audience."""

    rank: int
    score: float = Field(description="P(they buy any of it within the window), or P(they redeem the offer).")
    reason: str


class PassedOver(BaseModel):
    """Customers who are not asked about, and the first reason why."""

    reason: str
    customers: int


class AudienceAnswer(Answer):
    """Who is likeliest to buy, likeliest first."""

    results: list[AudienceResult]
    eligible: int = Field(description="How many customers it was chosen from.")
    expected_buyers: float = Field(description="How many of the audience are expected to buy: the sum of the scores.")
    expected_lift: float | None = Field(description="How many times as many as of a random audience of this size.")
    window_days: int | None = Field(description="Within how many days; null for an offer: while it runs.")
    left_out: list[PassedOver] = Field(description="Who is not in it, and why.")
    notes: list[str] = Field(description="What of the question means nothing in this shop.")
    reason: str | None = Field(description="Where fewer than n are in it, or nobody: why.")
