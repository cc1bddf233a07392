"""Sentences: how a fact about a customer is said, bad news and good, in figures that the shop can look up.

A sentence is bad news (it speaks for staying away), good news, or neither; none is said where it is not true.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from customers.reports.recommendation_reasons import format_times


@dataclass(frozen=True, slots=True)
class CustomerFeatures:
    """One customer's figures by feature name, NaN for what is not known; what they no longer buy; the horizon."""

    columns: Mapping[str, np.ndarray]
    row: int
    horizon_days: int = 28
    lapsed_categories: Sequence[tuple[str, float]] = ()

    def __call__(self, name: str) -> float:
        return float(self.columns[name][self.row]) if name in self.columns else math.nan

    @property
    def window_days(self) -> int:
        """The days over which a change is news: a month, or a quarter where customers come that seldom."""
        return 90 if self.horizon_days > 45 and "spend_90d_before" in self.columns else 28

    def has_tenure(self, days: int) -> bool:
        """Whether they have been customers for so long; before that, weeks without them say nothing."""
        return not self("tenure_days") < days


ReasonRule = Callable[[CustomerFeatures], str | None]


@dataclass(frozen=True, slots=True)
class ReasonFamily:
    """What is said of a family of features: the first sentence that is true, of those of its direction."""

    risk_reasons: tuple[ReasonRule, ...]
    retention_reasons: tuple[ReasonRule, ...]

    def describe(self, features: CustomerFeatures, weight: float) -> str | None:
        """Bad news where the family speaks for staying away (a weight above 0), else good; None if none is true."""
        texts = (rule(features) for rule in (self.risk_reasons if weight > 0 else self.retention_reasons))
        return next(filter(None, texts), None)


def every_days(gap_days: float) -> str:
    """How often, of a gap in days."""
    return f"every {day_count(gap_days)}" if format_count(gap_days) != "1" else "every day"


def day_count(count: float) -> str:
    """A number of days."""
    return f"{format_count(count)} day" if format_count(count) == "1" else f"{format_count(count)} days"


def format_count(count: float) -> str:
    """Whole where it is whole; halves where a median falls between two days."""
    rounded = round(count * 2) / 2
    return str(int(rounded)) if rounded == int(rounded) else f"{rounded:.1f}"


def times_count(count: float) -> str:
    """How many times."""
    return format_times(count)
