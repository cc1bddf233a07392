"""Churn bands by the shop's own retention costs: whether it pays to contact a customer who is at risk.

A contact pays where churn probability x expected value x share of churners that a contact keeps is more than its cost.
A customer who costs more to keep than to lose is not contacted.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

CONFIG_TEMPLATE = """
# [retention]                                 # who is worth a contact: band medium, and high for the dearer contact
# contact_cost = 2.00                         # a letter; medium: probability x expected value x saved_share is more
# high_cost = 5.00                            # a call or a gift; high: it is more than this; default: 2.5 letters
# saved_share = 0.1                           # of those who would leave, the share that a contact keeps
# medium_from = 0.2                           # without costs, or where a value is not known: bands by probability
# high_from = 0.5
"""
#: Bands of churn risk: a letter for medium, a call for high. Customers who have left are in the band "lapsed".
LOW, MEDIUM, HIGH = "low", "medium", "high"
Band = Literal["low", "medium", "high", "lapsed"]
#: Cost of a call in letters where only contact_cost is set: the ratio of the default thresholds, 0.5 to 0.2.
HIGH_COST_RATIO = 2.5


@dataclass(frozen=True, slots=True)
class RetentionCosts:
    """Cost and effect of a contact; without `contact_cost`, bands are set by churn probability alone.

    Costs are in the shop's currency; `saved_share`, `medium_from` and `high_from` are shares from 0 to 1. Defaults of
    the thresholds: one in five churns even among regular customers; from one in two on, churn is the likelier outcome.
    """

    contact_cost: float | None = None
    high_cost: float | None = None
    saved_share: float = 0.1
    medium_from: float = 0.2
    high_from: float = 0.5

    def assign_bands(self, probability: NDArray[np.float64], value: NDArray[np.float64] | None) -> list[str]:
        """The band "low", "medium" or "high" of each customer, from churn probability and expected spend.

        Both of shape (n,); `value` in the shop's currency, NaN where unknown: then the probability decides.
        """
        high, medium = probability >= self.high_from, probability >= self.medium_from
        if self.contact_cost is not None and value is not None:
            gain = probability * value * self.saved_share
            has_value = np.isfinite(value)
            high_cost = self.contact_cost * HIGH_COST_RATIO if self.high_cost is None else self.high_cost
            high, medium = (
                np.where(has_value, gain > high_cost, high),
                np.where(has_value, gain > self.contact_cost, medium),
            )
        return list(np.select([high, medium], [HIGH, MEDIUM], LOW).tolist())


def parse_retention_costs(table: Any) -> RetentionCosts:
    """Retention costs from a table of the settings, or from its text as one line of TOML.

    Raises ValueError where the table, a name, a value or their order is invalid; the message names the correction.
    """
    values = _parse_toml(table) if isinstance(table, str) else table
    if not isinstance(values, Mapping):
        raise ValueError("retention must be a table, as in: [retention]")
    allowed_names = [field.name for field in fields(RetentionCosts)]
    if unknown := sorted(set(values) - set(allowed_names)):
        raise ValueError(f"retention: {', '.join(unknown)} is not known; there are {', '.join(allowed_names)}")
    costs = RetentionCosts(**{name: _parse_number(name, value) for name, value in values.items()})
    _check_order(costs)
    return costs


def _parse_toml(text: str) -> Any:
    try:
        return tomllib.loads(f"retention = {text}")["retention"]
    except tomllib.TOMLDecodeError:
        raise ValueError("retention must be one line of TOML, as in: { contact_cost = 2.0 }") from None


def _parse_number(name: str, value: Any) -> float:
    is_valid = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    if name.endswith("_cost"):
        if not is_valid:
            raise ValueError(f"retention: {name} must be an amount of money, at least 0")
    elif not (is_valid and value <= 1):
        raise ValueError(f"retention: {name} must be a share from 0 to 1")
    return float(value)


def _check_order(costs: RetentionCosts) -> None:
    if costs.high_from < costs.medium_from:
        raise ValueError("retention: high_from must not be below medium_from")
    if costs.high_cost is None:
        return
    if costs.contact_cost is None:
        raise ValueError("retention: high_cost needs contact_cost beside it, what the cheaper way costs")
    if costs.high_cost < costs.contact_cost:
        raise ValueError("retention: high_cost must not be below contact_cost")
