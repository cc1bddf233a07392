"""The shapes of what is looked up and sent rather than asked: lists, one customer's file, and what was kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from customers.shop.retention_costs import Band


class AtRisk(BaseModel):
    """One customer who may be drifting away."""

    customer_id: str
    as_of: datetime
    churn_probability: float
    churn_band: Band
    value_at_risk: str | None = Field(description="Expected spend times the chance of losing it, as money.")
    saved_value: str | None = Field(
        description="What contacting them is expected to save, as money; null while there is no evidence that it does."
    )
    currency: str
    last_purchase_at: datetime | None
    expected_next_purchase_at: datetime | None
    days_overdue: float | None = Field(description="Days that the silence is longer than the usual gap.")
    open_complaints: int | None
    reasons: list[str]
    suggested_offer_id: str | None = Field(description="The best offer that may be made to them now.")
    contactable: list[str] = Field(description="The channels on which they may be written to or called.")


class AtRiskPage(BaseModel):
    """A page of them, likeliest to leave first, or in the order that was asked for."""

    items: list[AtRisk]
    next_cursor: str | None
    no_saved_value: str | None = Field(default=None, description="Why nobody's saved value is told; null where it is.")


class Scores(BaseModel):
    """What the models last said about one customer, by model."""

    customer_id: str
    scores: dict[str, dict[str, Any]]


class Profile(BaseModel):
    """Everything the shop knows about one customer, as far as the key's role may see it."""

    model_config = ConfigDict(extra="allow")

    customer_id: str
    profile: dict[str, Any] | None = Field(description="Personal fields; null for roles that may not see them.")
    attributes: dict[str, Any]
    orders: list[dict[str, Any]] = Field(description="The latest orders with their lines, newest first.")
    interactions: list[dict[str, Any]] = Field(description="The latest contacts, newest first.")
    consents: list[dict[str, Any]] = Field(description="What they allow, a purpose each, and since when.")
    scores: dict[str, dict[str, Any]] = Field(description="What each model last said.")


class TurnedAway(BaseModel):
    """One record that was not kept."""

    index: int
    reason: str


class Kept(BaseModel):
    """What became of the records sent: read = inserted + updated + unchanged + rejected."""

    kind: str
    read: int
    inserted: int
    updated: int
    unchanged: int
    rejected: int
    errors: list[TurnedAway]
    refreshed: bool = Field(description="Whether every answer knows of it already; if not, it soon will.")


class Erased(BaseModel):
    """That a customer is forgotten."""

    erased: bool
    lines: int = Field(description="Lines of their sales that are nobody's now.")
    forgotten: bool = Field(description="Whether what was computed of them is gone too; if not, it soon will be.")
