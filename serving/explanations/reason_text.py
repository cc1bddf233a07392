"""Reason text: rules that turn a customer's features into a sentence with numbers that the shop can look up.

A sentence gives a risk reason (for churn), a retention reason (against it), or either; a rule returns None where its
sentence is not true.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from customers.reports.recommendation_reasons import format_times


@dataclass(frozen=True, slots=True)
class CustomerFeatures:
    """Features of one customer: call it with a feature name for the value, NaN where there is none.

    columns: (n_customers,) arrays by feature name. lapsed_categories: category and days since its last purchase.
    """

    columns: Mapping[str, np.ndarray]
    row: int
    horizon_days: int = 28
    lapsed_categories: Sequence[tuple[str, float]] = ()

    def __call__(self, name: str) -> float:
        return float(self.columns[name][self.row]) if name in self.columns else math.nan

    @property
    def window_days(self) -> int:
        """The window in which changes are compared: 28 days, or 90 for a churn horizon of more than 45 days."""
        return 90 if self.horizon_days > 45 and "spend_90d_before" in self.columns else 28

    def has_tenure(self, days: int) -> bool:
        """Whether the customer has had this many days of tenure; before that, empty weeks mean nothing."""
        return not self("tenure_days") < days


ReasonRule = Callable[[CustomerFeatures], str | None]


@dataclass(frozen=True, slots=True)
class ReasonFamily:
    """The reason rules of a family of features, for each direction; the first one whose sentence is true is used."""

    risk_reasons: tuple[ReasonRule, ...]
    retention_reasons: tuple[ReasonRule, ...]

    def describe(self, features: CustomerFeatures, weight: float) -> str | None:
        """The risk reason for a weight above 0 (towards churn), else the retention reason; None if none is true."""
        texts = (rule(features) for rule in (self.risk_reasons if weight > 0 else self.retention_reasons))
        return next(filter(None, texts), None)


def every_days(gap_days: float) -> str:
    """A gap in days as a frequency: "every 7 days"."""
    return f"every {day_count(gap_days)}" if format_count(gap_days) != "1" else "every day"


def day_count(count: float) -> str:
    """A number of days: "1 day", "3.5 days"."""
    return f"{format_count(count)} day" if format_count(count) == "1" else f"{format_count(count)} days"


def format_count(count: float) -> str:
    """A number rounded to halves: a median may fall between two days."""
    rounded = round(count * 2) / 2
    return str(int(rounded)) if rounded == int(rounded) else f"{rounded:.1f}"


def times_count(count: float) -> str:
    """A count as a word: "once", "twice", "3 times"."""
    return format_times(count)
