"""The shapes of a question about products and of its answer: which list, under which rules, and why it is short."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from customers.shop import merchandising_rules
from serving.api.schemas.common import (
    Answer,
    Categories,
    CurrentQuestion,
    Depth,
    Id,
    ListName,
    Product,
    ProductIds,
    Result,
)

#: Pydantic gives every question a copy of its own.
EMPTY_LIST: list[str] = []
ExcludedIds = Annotated[list[Id], Field(max_length=100, description="None of these, beside what the shop leaves out.")]
# Of the shop's own rules these take the place; left out or null, the shop's hold.
InStockOnly = Annotated[bool | None, Field(description="Nothing whose stock is counted and gone.")]
MinMargin = Annotated[
    float | None,
    Field(ge=-10, le=1, allow_inf_nan=False, description="(price - cost) / price at least; unknown ones may stay."),
]
Boosts = Annotated[
    dict[Id, Annotated[float, Field(ge=0, le=merchandising_rules.MAX_BOOST, allow_inf_nan=False)]] | None,
    Field(max_length=100, description="A product's label, and the factor on its score."),
]
Pins = Annotated[list[Id] | None, Field(max_length=100, description="Labels of products that come first.")]
MaxPerCategory = Annotated[int | None, Field(ge=1, description="So many of one category at most.")]
ExploreShare = Annotated[
    float | None,
    Field(
        ge=0, le=merchandising_rules.MAX_EXPLORE, allow_inf_nan=False, description="So many of the places to explore."
    ),
]
Seed = Annotated[
    int | None, Field(ge=0, lt=2**63, description="Draws what is explored; the same again draws the same.")
]


class RecommendationQuestion(CurrentQuestion):
    """Which products next, from which list, and which never."""

    list: ListName = Field(default="any", description='"again" was bought before, "new" never; "any" is both.')
    n: Depth = 10
    exclude_product_ids: ProductIds = EMPTY_LIST
    categories: Categories = EMPTY_LIST
    exclude_categories: ExcludedIds = EMPTY_LIST
    exclude_departments: ExcludedIds = EMPTY_LIST
    in_stock_only: InStockOnly = None
    min_margin: MinMargin = None
    boost: Boosts = None
    pin: Pins = None
    max_per_category: MaxPerCategory = None
    explore: ExploreShare = None
    seed: Seed = None


class Short(BaseModel):
    """Why a list holds fewer products than were asked for."""

    missing: int
    rules: list[str] = Field(description="The rules that have left products out; none where there are no more.")
    reason: str


class RecommendationResult(Result):
    """The products, best first."""

    items: list[Product]
    short: Short | None = Field(description="Where there are fewer than asked for: which rules left too few.")
    notes: list[str] = Field(description="What of the question means nothing in this shop.")


class RecommendationAnswer(Answer):
    """Which products next, a result a customer, in the order asked."""

    results: list[RecommendationResult]
