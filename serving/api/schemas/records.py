"""Request and response schemas for lists, stored customer data, record uploads and erasure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from customers.shop.retention_costs import Band


class AtRisk(BaseModel):
    """One customer of the at-risk list."""

    customer_id: str
    as_of: datetime
    churn_probability: float
    churn_band: Band
    value_at_risk: str | None = Field(description="Expected spend times churn probability, as money.")
    saved_value: str | None = Field(
        description="Spend that a contact is expected to save, as money; null without evidence that contacts save any."
    )
    currency: str
    last_purchase_at: datetime | None
    expected_next_purchase_at: datetime | None
    days_overdue: float | None = Field(
        description="Days since the last purchase, beyond the usual gap between purchases."
    )
    open_complaints: int | None
    reasons: list[str]
    suggested_offer_id: str | None = Field(description="The best offer that the customer is eligible for now.")
    contactable: list[str] = Field(description="The channels on which the customer may be contacted.")


class AtRiskPage(BaseModel):
    """One page of the at-risk list, most probable churn first or in the requested order."""

    items: list[AtRisk]
    next_cursor: str | None
    no_saved_value: str | None = Field(
        default=None, description="Why saved_value is null for all; null where it is not."
    )


class Scores(BaseModel):
    """The latest stored scores of one customer, by model."""

    customer_id: str
    scores: dict[str, dict[str, Any]]


class Profile(BaseModel):
    """Everything that the shop stores about one customer, as far as the role of the key may see it."""

    model_config = ConfigDict(extra="allow")

    customer_id: str
    profile: dict[str, Any] | None = Field(description="Personal fields; null for roles that may not see them.")
    attributes: dict[str, Any]
    orders: list[dict[str, Any]] = Field(description="The latest orders with their lines, newest first.")
    interactions: list[dict[str, Any]] = Field(description="The latest contacts, newest first.")
    consents: list[dict[str, Any]] = Field(description="The consent to each purpose, and since when.")
    scores: dict[str, dict[str, Any]] = Field(description="The latest stored score of each model.")


class TurnedAway(BaseModel):
    """One record that was rejected."""

    index: int
    reason: str


class Kept(BaseModel):
    """The result of a record upload: read = inserted + updated + unchanged + rejected."""

    kind: str
    read: int
    inserted: int
    updated: int
    unchanged: int
    rejected: int
    errors: list[TurnedAway]
    refreshed: bool = Field(description="Whether all predictions include the records already; if not, they soon will.")


class Erased(BaseModel):
    """The result of an erasure."""

    erased: bool
    lines: int = Field(description="Sales lines that no longer belong to any customer.")
    forgotten: bool = Field(description="Whether features and scores are erased too; if not, they soon will be.")
