"""Reasons are facts about the customer: every number in them can be looked up."""

import math

import numpy as np
import pytest

from serving import words


def reasons(names: list[str], **figures: float) -> list[str]:
    return words.why_drifting([names], {name: np.array([value]) for name, value in figures.items()})[0]


def test_silence_is_told_beside_the_usual_gap() -> None:
    said = reasons(["recency_days"], recency_days=19, gap_median_days=6)
    assert said == ["comes about every 6 days, silent for 19"]


def test_a_single_visit_has_no_usual_gap() -> None:
    assert reasons(["overdue_ratio"], recency_days=40, gap_median_days=math.nan) == ["bought only once, 40 days ago"]


def test_features_of_one_topic_are_told_once() -> None:
    said = reasons(
        ["recency_days", "overdue_ratio", "purchase_days", "gap_mean_days"],
        recency_days=19, gap_median_days=6, purchase_days=12,
    )  # fmt: skip
    assert said == ["comes about every 6 days, silent for 19", "has bought on 12 days in all"]


def test_three_reasons_are_enough() -> None:
    said = reasons(
        ["recency_days", "purchase_days", "tenure_days", "spend_28d"],
        recency_days=3, gap_median_days=6, purchase_days=12, tenure_days=90, spend_28d=3, spend_28d_before=6,
    )  # fmt: skip
    assert said == [
        "comes about every 6 days, silent for 3",
        "has bought on 12 days in all",
        "first bought 90 days ago",
    ]


def test_what_cannot_be_said_leaves_room_for_the_next() -> None:
    assert reasons(["as_of_weekday", "spend_28d", "purchase_days"], purchase_days=1, spend_28d_before=0) == [
        "has bought on 1 day in all"
    ]


def test_spending_is_compared_with_the_weeks_before() -> None:
    assert reasons(["spend_trend_28d"], spend_28d=30, spend_28d_before=60) == [
        "spent 50 % less in the last 28 days than in the 28 before"
    ]


def test_the_weeks_before_somebody_first_came_say_nothing() -> None:
    assert reasons(["purchase_days_28d"], purchase_days_28d=2, purchase_days_28d_before=0, tenure_days=20) == [
        "bought on 2 days of the last 28"
    ]


def test_a_silence_beyond_all_before_is_called_that() -> None:
    assert reasons(["overdue_max_ratio"], recency_days=50, gap_max_days=21) == [
        "never stayed away this long before, 21 days at most"
    ]
    assert reasons(["overdue_max_ratio"], recency_days=5, gap_max_days=21) == [
        "has stayed away for 21 days before and come back"
    ]


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
def test_a_product_is_listed_for_a_reason(source: str, times: float, last_days: float, reason: str) -> None:
    assert words.why_product(source, times, last_days) == reason
