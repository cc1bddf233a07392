"""Churn reasons: every number in them is a feature of the customer, and the wording agrees with its direction."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.engine import ledger_lines
from features.families import category_history, engagement, product_mix, recency_frequency, spend
from serving.explanations import churn_reasons, lapsed_categories

NAN = math.nan


def explain(
    weights: dict[str, float], *, horizon_days: int = 28, lapsed_loader: Any = None, **features: float
) -> list[str]:
    """The reasons of one customer; `weights` is what each feature adds to the log odds of no purchase."""
    frames = pd.DataFrame([weights], dtype=float), pd.DataFrame([features], dtype=float)
    (reasons,) = churn_reasons.explain_churn(*frames, horizon_days=horizon_days, lapsed_loader=lapsed_loader)
    return [sentence for sentence, _ in reasons]


def test_recency_is_given_with_the_usual_gap() -> None:
    gaps = {"gap_median_days": 6, "gap_max_days": 21}
    assert explain({"recency_days": 1}, recency_days=19, **gaps) == ["comes about every 6 days, silent for 19"]
    assert explain({"recency_days": 1}, recency_days=22, **gaps) == [
        "comes about every 6 days, silent for 22, longer than ever before"
    ]


def test_a_recency_within_the_usual_gap_does_not_raise_churn() -> None:
    assert explain({"recency_days": 1}, recency_days=5, gap_median_days=6) == []
    assert explain({"recency_days": -1}, recency_days=1, gap_median_days=6) == [
        "comes about every 6 days, last bought yesterday"
    ]


def test_a_long_recency_lowers_churn_only_after_a_longer_gap_before() -> None:
    features = {"recency_days": 19, "gap_median_days": 6}
    assert explain({"overdue_ratio": -1}, **features, gap_max_days=21) == [
        "has stayed away for 21 days before and come back"
    ]
    assert explain({"overdue_ratio": -1}, **features, gap_max_days=18) == []


def test_a_single_purchase_has_no_usual_gap() -> None:
    assert explain({"overdue_ratio": 1}, recency_days=40, gap_median_days=NAN) == ["bought only once, 40 days ago"]
    assert explain({"overdue_ratio": 1, "purchase_days": 2}, recency_days=40) == ["bought only once, 40 days ago"]
    assert explain({"recency_days": -1}, recency_days=3) == ["bought for the first time 3 days ago"]


def test_features_of_one_family_add_up_to_one_reason() -> None:
    reasons = explain(
        {"recency_days": 0.3, "overdue_ratio": 0.3, "spend_28d": 0.5, "gap_max_days": -0.05},
        recency_days=19, gap_median_days=6, spend_28d=30, spend_28d_before=60,
    )  # fmt: skip
    assert reasons == [
        "comes about every 6 days, silent for 19",  # 0.3 + 0.3 - 0.05 = 0.55, and 0.5
        "spent 50 % less in the last 28 days than in the 28 before",
    ]


def test_a_reason_against_the_prediction_is_marked_and_comes_last() -> None:
    features = {"recency_days": 19, "gap_median_days": 6, "spend_28d": 90, "spend_28d_before": 60}
    assert explain({"recency_days": 1.0, "spend_28d": -0.5}, **features) == [
        "comes about every 6 days, silent for 19",
        "yet spent 50 % more in the last 28 days than in the 28 before",
    ]
    assert explain({"recency_days": 1.0, "spend_28d": -1.5}, **features) == [
        "spent 50 % more in the last 28 days than in the 28 before",
        "yet comes about every 6 days, silent for 19",
    ]
    assert explain({"recency_days": 1.0, "spend_28d": -1.5, "unknown_feature": 3.0}, **features)[0] == (
        "comes about every 6 days, silent for 19"
    )


def test_weights_are_returned_with_their_signs() -> None:
    frame = pd.DataFrame({"recency_days": [19.0], "gap_median_days": [6.0], "tenure_days": [300.0]})
    weights = pd.DataFrame({"recency_days": [1.0], "overdue_ratio": [0.25], "tenure_days": [-0.5]})
    assert churn_reasons.explain_churn(weights, frame) == [
        [("comes about every 6 days, silent for 19", 1.25), ("yet first bought 300 days ago", -0.5)]
    ]


def test_at_most_three_reasons_are_given_and_none_with_a_small_weight() -> None:
    features = {
        "recency_days": 19, "gap_median_days": 6, "spend_28d": 30, "spend_28d_before": 60, "tenure_days": 80,
        "complaint_recency_days": 12, "purchase_days_28d": 2, "purchase_days_28d_before": 6,
    }  # fmt: skip
    strong = {"recency_days": 4, "spend_28d": 3, "purchase_days_28d": 2, "complaints_90d": 1}
    assert explain(strong, **features) == [
        "comes about every 6 days, silent for 19",
        "spent 50 % less in the last 28 days than in the 28 before",
        "bought on 2 days of the last 28, on 6 of the 28 before",
    ]
    assert explain({"complaints_90d": 0.09, "recency_days": 0.07}, **features) == ["complained 12 days ago"]


def test_a_feature_without_a_sentence_is_replaced_by_the_next() -> None:
    weights = {"as_of_weekday": 3.0, "spend_28d": 2.0, "purchase_days": 1.0}
    features = {"purchase_days": 2, "tenure_days": 60, "spend_28d_before": 0, "spend_28d": 5}
    assert explain(weights, **features) == ["bought on only 2 of the 60 days since they first came"]


def test_weeks_before_the_first_purchase_are_not_compared() -> None:
    features = {"purchase_days_28d": 2, "purchase_days_28d_before": 3, "tenure_days": 50}
    assert explain({"purchase_days_28d": 1}, **features) == []
    assert explain({"purchase_days_28d": -1}, **features) == ["bought on 2 days of the last 28"]


def test_no_visits_and_no_spend_give_one_reason() -> None:
    features = {"spend_28d": 0, "spend_28d_before": 60, "purchase_days_28d_before": 2, "tenure_days": 300}
    weights = {"purchase_days_28d": 1, "spend_28d": 1}
    assert explain(weights, purchase_days_28d=0, **features) == ["bought on none of the last 28, on 2 of the 28 before"]


def test_spend_offset_by_returns_gives_no_reason_of_spending_nothing() -> None:
    features = {"spend_28d_before": 60, "purchase_days_28d": 1, "tenure_days": 300}
    for spent in (0, -5):
        assert explain({"spend_28d": 1}, spend_28d=spent, **features) == []
    assert explain({"return_share": 1}, return_share=1.5) == []
    assert explain({"return_share": 1}, return_share=1) == ["100 % of what they bought was brought back"]


def test_gaps_that_round_to_the_same_number_give_no_reason() -> None:
    features = {"gap_mean_days": 2.0, "tenure_days": 300}
    assert explain({"gap_recent_days": 1}, gap_recent_days=2.24, **features) == []
    assert explain({"gap_recent_days": 1}, gap_recent_days=2.5, **features) == [
        "lately came every 2.5 days, over all the time every 2 days"
    ]
    assert explain({"gap_recent_days": -1}, gap_recent_days=1.8, **features) == []


def test_a_single_category_gives_no_reason() -> None:
    """In a shop without categories all products count as one category."""
    assert explain({"category_count": 1}, category_count=1) == []
    assert explain({"category_count": 1}, category_count=2) == ["buys from only 2 categories"]


def test_messages_give_no_reason_where_no_campaign_was_received() -> None:
    for direction, recency_days, sentence in (
        (-1, 3, "a message reached them 3 days ago"),
        (1, 70, "the last message reached them 70 days ago"),
    ):
        weights = {"received_28d": direction}
        assert explain(weights, received_recency_days=recency_days, campaigns_received=1) == [sentence]
        assert explain(weights, received_recency_days=recency_days, campaigns_received=0) == []


def test_with_a_horizon_of_90_days_quarters_are_compared() -> None:
    features = {"spend_90d": 30, "spend_90d_before": 50, "spend_28d": 9, "spend_28d_before": 3}
    assert explain({"spend_90d": 1}, horizon_days=90, **features) == [
        "spent 40 % less in the last 90 days than in the 90 before"
    ]


def test_a_lapsed_category_is_named() -> None:
    requested_rows = []

    def load_lapsed(rows: list[int]) -> dict[int, list[tuple[str, float]]]:
        requested_rows.extend(rows)
        return {0: [("dairy", 61.0)]}

    assert explain({"repeat_share_28d": 1}, lapsed_loader=load_lapsed, category_count=40) == [
        "no longer buys dairy, last bought 61 days ago"
    ]
    assert explain({"repeat_share_28d": -1}, lapsed_loader=load_lapsed, category_count=40) == [
        "buys from 40 categories"
    ]
    assert requested_rows == [0]  # lapsed categories are loaded only where baskets raise the churn probability


def category_history_row(**lists: list[float]) -> pd.DataFrame:
    """Category history of a customer, one row, last purchase 4 days ago, with list columns for dairy and bread."""
    defaults = {name: [1.0, 1.0] for name in category_history.LIST_NUMBERS}
    columns = {f"need_{name}": [np.array(values, float)] for name, values in (defaults | lists).items()}
    return pd.DataFrame({"customer_key": [7], "as_of": [pd.Timestamp("2026-06-01", tz="UTC")], "recency_days": [4.0],
                         "categories": [np.array(["dairy", "bread"], object)], **columns})  # fmt: skip


def test_a_category_missing_for_four_gaps_has_lapsed() -> None:
    regular = {"times": [9, 8], "gap_means": [7, 7], "gap_maxima": [20, 20], "first_days": [90, 90]}
    assert lapsed_categories.find_lapsed(category_history_row(**regular, last_days=[33, 6])) == {
        0: [("dairy", 33.0)]
    }  # 29 days without it while they came: more than four gaps
    assert (
        lapsed_categories.find_lapsed(category_history_row(**regular, last_days=[31, 6])) == {}
    )  # 27 days: less than four
    assert lapsed_categories.find_lapsed(category_history_row(**regular, last_days=[33, 40])) == {
        0: [("dairy", 33.0), ("bread", 40.0)]
    }
    for irregular in ({"times": [4, 4]}, {"first_days": [60, 60]}, {"gap_maxima": [30, 40]}):
        assert lapsed_categories.find_lapsed(category_history_row(**regular | irregular, last_days=[33, 40])) == {}
    assert (
        lapsed_categories.find_lapsed(category_history_row(**regular | {"first_days": [300, 300]}, last_days=[121, 6]))
        == {}
    )  # last bought more than MAX_LAPSED_DAYS ago
    assert lapsed_categories.find_lapsed(category_history_row(**regular, last_days=[33, 40]), {"bread"}) == {
        0: [("dairy", 33.0)]
    }


COLUMNS = [
    *recency_frequency.columns(ledger_lines.VISIBLE_DAYS),
    *spend.columns(ledger_lines.VISIBLE_DAYS),
    *product_mix.columns(ledger_lines.VISIBLE_DAYS),
    *engagement.column_names(),
]


def test_every_feature_but_the_weekday_has_a_family() -> None:
    assert [name for name in COLUMNS if churn_reasons.find_family(name) is None] == ["as_of_weekday"]


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_no_reason_contradicts_its_direction(direction: float) -> None:
    """Features that all got worse give no reason against churn, and features that all got better none for it."""
    worse = {
        "recency_days": 40, "gap_median_days": 6, "gap_max_days": 30, "purchase_days": 5, "tenure_days": 85,
        "purchase_days_28d": 0, "purchase_days_28d_before": 4, "gap_recent_days": 9, "gap_mean_days": 6,
        "gap_last_days": 12, "spend_28d": 0, "spend_28d_before": 50, "basket_value_last": 5, "basket_value_mean": 10,
        "repeat_share_28d": 0.2, "repeat_share": 0.25, "category_count": 3, "campaigns_received": 4,
        "campaigns_redeemed": 0, "received_recency_days": 70, "opened_recency_days": 60, "received_90d": 1,
        "viewed_recency_days": 50, "viewed_7d": 0, "viewed_28d": 0, "device_28d": 0, "device_28d_before": 9,
        "device_recency_days": 30, "return_share": 0.3, "complaints_90d": 2, "unanswered_total": 1,
        "unanswered_days": 3,
    }  # fmt: skip
    better = worse | {
        "recency_days": 3, "purchase_days": 60, "tenure_days": 300, "purchase_days_28d": 6, "gap_recent_days": 3,
        "gap_last_days": 3, "spend_28d": 80, "basket_value_last": 15, "repeat_share": 0.6, "repeat_share_28d": 0.6,
        "category_count": 30, "campaigns_redeemed": 2, "redeemed_90d": 1, "received_recency_days": 5, "opened_28d": 2,
        "opened_recency_days": 3,
        "viewed_recency_days": 2, "device_recency_days": 1,
        "viewed_7d": 2, "viewed_28d": 3, "device_28d": 9, "return_share": 0, "complaints_90d": 0,
        "unanswered_total": 0, "products_new_28d": 2,
    }  # fmt: skip
    for name in COLUMNS:
        assert explain({name: direction}, **(better if direction > 0 else worse)) == [], name
        reasons = explain({name: direction}, **(worse if direction > 0 else better))
        assert not reasons or not reasons[0].startswith(churn_reasons.COUNTER_PREFIX)
    assert len({explain({name: direction}, **(worse if direction > 0 else better))[0] for name in STRONG}) == len(
        STRONG
    )


STRONG = (
    "recency_days",
    "purchase_days",
    "purchase_days_28d",
    "spend_28d",
    "repeat_share",
    "received_28d",
    "device_28d",
)


def test_missing_features_give_no_reasons() -> None:
    for direction in (1.0, -1.0):
        for name in COLUMNS:
            assert explain({name: direction}, customer_key=1) == []
            assert explain({name: direction}, **dict.fromkeys(COLUMNS, NAN)) == []


def test_a_median_gap_may_lie_between_two_days() -> None:
    assert explain({"recency_days": 1}, recency_days=9, gap_median_days=2.5) == [
        "comes about every 2.5 days, silent for 9"
    ]


#: The pattern of a reason, with a group for each feature in it; whether these values raise the churn probability.
PATTERNS: dict[str, Callable[..., bool]] = {
    r"comes about every (?P<gap_median_days>day|[\d.]+) ?(days)?, silent for (?P<recency_days>\d+)":
        lambda recency_days, gap_median_days, **_: recency_days > gap_median_days,
    r"comes about every (?P<gap_median_days>day|[\d.]+) ?(days)?, last bought (?P<recency_days>.+)":
        lambda recency_days, gap_median_days, **_: recency_days > gap_median_days,
    r"bought on only (?P<purchase_days>\d+) of the (?P<tenure_days>\d+) days since they first came": lambda **_: True,
    r"bought on (?P<purchase_days>\d+) of the (?P<tenure_days>\d+) days since they first came": lambda **_: False,
    r"bought on (?P<purchase_days_28d>\w+)( days?)? of the last 28, on (?P<purchase_days_28d_before>\w+) of the 28 b.*":
        lambda purchase_days_28d, purchase_days_28d_before, **_: purchase_days_28d < purchase_days_28d_before,
    r"first bought (?P<tenure_days>\d+) days? ago": lambda tenure_days, **_: tenure_days < 90,
    r"has stayed away for (?P<gap_max_days>\d+) days? before and come back": lambda **_: False,
}  # fmt: skip
WORDS = {"day": 1.0, "none": 0.0, "today": 0.0, "yesterday": 1.0, "once": 1.0, "twice": 2.0}


def parse_number(text: str) -> float:
    """A number as a reason text writes it."""
    return WORDS[text] if text in WORDS else float(text.removesuffix(" days ago"))


def test_every_reason_is_true_of_the_customers_own_features() -> None:
    random = np.random.default_rng(5)
    count = 400
    frame = pd.DataFrame({name: random.integers(0, 30, count).astype(float) for name in COLUMNS})
    frame["tenure_days"] = random.integers(30, 300, count).astype(float)
    names = ["recency_days", "purchase_days", "purchase_days_28d", "tenure_days"]
    weights = pd.DataFrame(random.normal(size=(count, len(names))), columns=names)
    all_reasons = churn_reasons.explain_churn(weights, frame)
    listed = [(row, *reason) for row, reasons in enumerate(all_reasons) for reason in reasons]
    checked = 0
    for row, sentence, weight in listed:
        log_odds = weights.iloc[row].sum()
        assert sentence.startswith(churn_reasons.COUNTER_PREFIX) is bool(weight * log_odds < 0)
        for pattern, raises_churn in PATTERNS.items():
            if match := re.match(pattern, sentence.removeprefix(churn_reasons.COUNTER_PREFIX)):
                stated = {name: parse_number(text) for name, text in match.groupdict().items()}
                assert frame.loc[row, list(stated)].to_dict() == stated, sentence
                assert raises_churn(**stated) is bool(weight > 0), sentence
                checked += 1
                break
        else:
            assert re.match(r"(yet )?(lately came|the last two visits|bought on|bought)", sentence), sentence
    assert checked > count
