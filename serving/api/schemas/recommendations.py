"""Request and response schemas for recommendations: list, merchandising rules, and why a list is short."""

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

#: Pydantic copies this default for every request.
EMPTY_LIST: list[str] = []
ExcludedIds = Annotated[list[Id], Field(max_length=100, description="Leave these out, besides what the shop excludes.")]
# Each of these replaces the shop's own rule; left out or null, the shop's own holds.
InStockOnly = Annotated[bool | None, Field(description="No product whose stock is counted and used up.")]
MinMargin = Annotated[
    float | None,
    Field(
        ge=-10,
        le=1,
        allow_inf_nan=False,
        description="Minimum (price - cost) / price; a product without both may stay.",
    ),
]
Boosts = Annotated[
    dict[Id, Annotated[float, Field(ge=0, le=merchandising_rules.MAX_BOOST, allow_inf_nan=False)]] | None,
    Field(max_length=100, description="Factor on the score of the products with a label, by label."),
]
Pins = Annotated[list[Id] | None, Field(max_length=100, description="Labels; products with one of them come first.")]
MaxPerCategory = Annotated[int | None, Field(ge=1, description="Maximum number of products of one category.")]
ExploreShare = Annotated[
    float | None,
    Field(
        ge=0,
        le=merchandising_rules.MAX_EXPLORE,
        allow_inf_nan=False,
        description="Share of the places for exploration.",
    ),
]
Seed = Annotated[
    int | None,
    Field(ge=0, lt=2**63, description="Random seed of the exploration; the same seed draws the same products."),
]


class RecommendationQuestion(CurrentQuestion):
    """Request for products to recommend: from which list and under which rules."""

    list: ListName = Field(default="any", description='"again": bought before; "new": never bought; "any": both.')
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
    """Why a list has fewer products than requested."""

    missing: int
    rules: list[str] = Field(description="The rules that excluded products; empty where there are no more products.")
    reason: str


class RecommendationResult(Result):
    """The products recommended to one customer, best first."""

    items: list[Product]
    short: Short | None = Field(description="Why there are fewer products than requested; null where there are enough.")
    notes: list[str] = Field(description="Parts of the request that match nothing in this shop.")


class RecommendationAnswer(Answer):
    """Recommendations, a result per customer, in the order of the request."""

    results: list[RecommendationResult]
