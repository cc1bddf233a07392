"""Reason texts of listed products, by the source of the recommendation."""

import math

import pytest

from customers.reports import recommendation_reasons


@pytest.mark.parametrize(
    ("source", "times", "last_days", "reason"),
    [
        ("again", 9, 14, "bought 9 times, last 14 days ago"),
        ("again", 2, 1, "bought twice, last yesterday"),
        ("again", 1, 30, "bought once, 30 days ago"),
        ("new", math.nan, math.nan, "customers with similar baskets buy it"),
        ("popular", math.nan, math.nan, "sells best in the shop"),
    ],
)
def test_the_reason_of_a_product_follows_its_source(source: str, times: float, last_days: float, reason: str) -> None:
    assert recommendation_reasons.product_reason(source, times, last_days) == reason
