"""Reasons are facts about the customer: every number in them can be looked up, and good news is never bad."""

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


def said(weights: dict[str, float], *, horizon_days: int = 28, left: Any = None, **figures: float) -> list[str]:
    """What one customer is told of, given what each feature adds to the log odds of no purchase."""
    given = pd.DataFrame([weights], dtype=float), pd.DataFrame([figures], dtype=float)
    found = churn_reasons.explain_churn(*given, horizon_days=horizon_days, lapsed_loader=left)
    return [sentence for sentence, _ in found[0]]


def test_silence_is_told_beside_the_usual_gap() -> None:
    usual = {"gap_median_days": 6, "gap_max_days": 21}
    assert said({"recency_days": 1}, recency_days=19, **usual) == ["comes about every 6 days, silent for 19"]
    assert said({"recency_days": 1}, recency_days=22, **usual) == [
        "comes about every 6 days, silent for 22, longer than ever before"
    ]


def test_a_silence_that_is_usual_for_them_is_no_bad_news() -> None:
    assert said({"recency_days": 1}, recency_days=5, gap_median_days=6) == []
    assert said({"recency_days": -1}, recency_days=1, gap_median_days=6) == [
        "comes about every 6 days, last bought yesterday"
    ]


def test_a_long_silence_is_good_news_only_to_who_was_away_for_longer() -> None:
    away = {"recency_days": 19, "gap_median_days": 6}
    assert said({"overdue_ratio": -1}, **away, gap_max_days=21) == ["has stayed away for 21 days before and come back"]
    assert said({"overdue_ratio": -1}, **away, gap_max_days=18) == []


def test_a_single_visit_has_no_usual_gap() -> None:
    assert said({"overdue_ratio": 1}, recency_days=40, gap_median_days=NAN) == ["bought only once, 40 days ago"]
    assert said({"overdue_ratio": 1, "purchase_days": 2}, recency_days=40) == ["bought only once, 40 days ago"]
    assert said({"recency_days": -1}, recency_days=3) == ["bought for the first time 3 days ago"]


def test_features_of_one_family_add_up_and_are_told_once() -> None:
    told = said(
        {"recency_days": 0.3, "overdue_ratio": 0.3, "spend_28d": 0.5, "gap_max_days": -0.05},
        recency_days=19, gap_median_days=6, spend_28d=30, spend_28d_before=60,
    )  # fmt: skip
    assert told == [
        "comes about every 6 days, silent for 19",  # 0.3 + 0.3 - 0.05 = 0.55, and 0.5
        "spent 50 % less in the last 28 days than in the 28 before",
    ]


def test_what_speaks_against_the_answer_says_so_and_comes_last() -> None:
    figures = {"recency_days": 19, "gap_median_days": 6, "spend_28d": 90, "spend_28d_before": 60}
    assert said({"recency_days": 1.0, "spend_28d": -0.5}, **figures) == [
        "comes about every 6 days, silent for 19",
        "yet spent 50 % more in the last 28 days than in the 28 before",
    ]
    assert said({"recency_days": 1.0, "spend_28d": -1.5}, **figures) == [
        "spent 50 % more in the last 28 days than in the 28 before",
        "yet comes about every 6 days, silent for 19",
    ]
    assert said({"recency_days": 1.0, "spend_28d": -1.5, "as_yet_unheard_of": 3.0}, **figures)[0] == (
        "comes about every 6 days, silent for 19"
    )


def test_weights_are_kept_with_their_signs() -> None:
    frame = pd.DataFrame({"recency_days": [19.0], "gap_median_days": [6.0], "tenure_days": [300.0]})
    weights = pd.DataFrame({"recency_days": [1.0], "overdue_ratio": [0.25], "tenure_days": [-0.5]})
    assert churn_reasons.explain_churn(weights, frame) == [
        [("comes about every 6 days, silent for 19", 1.25), ("yet first bought 300 days ago", -0.5)]
    ]


def test_three_reasons_are_enough_and_trifles_are_none() -> None:
    figures = {
        "recency_days": 19, "gap_median_days": 6, "spend_28d": 30, "spend_28d_before": 60, "tenure_days": 80,
        "complaint_recency_days": 12, "purchase_days_28d": 2, "purchase_days_28d_before": 6,
    }  # fmt: skip
    strong = {"recency_days": 4, "spend_28d": 3, "purchase_days_28d": 2, "complaints_90d": 1}
    assert said(strong, **figures) == [
        "comes about every 6 days, silent for 19",
        "spent 50 % less in the last 28 days than in the 28 before",
        "bought on 2 days of the last 28, on 6 of the 28 before",
    ]
    assert said({"complaints_90d": 0.09, "recency_days": 0.07}, **figures) == ["complained 12 days ago"]


def test_what_cannot_be_said_leaves_room_for_the_next() -> None:
    weights = {"as_of_weekday": 3.0, "spend_28d": 2.0, "purchase_days": 1.0}
    figures = {"purchase_days": 2, "tenure_days": 60, "spend_28d_before": 0, "spend_28d": 5}
    assert said(weights, **figures) == ["bought on only 2 of the 60 days since they first came"]


def test_the_weeks_before_somebody_first_came_say_nothing() -> None:
    figures = {"purchase_days_28d": 2, "purchase_days_28d_before": 3, "tenure_days": 50}
    assert said({"purchase_days_28d": 1}, **figures) == []
    assert said({"purchase_days_28d": -1}, **figures) == ["bought on 2 days of the last 28"]


def test_who_was_not_there_is_not_told_twice() -> None:
    away = {"spend_28d": 0, "spend_28d_before": 60, "purchase_days_28d_before": 2, "tenure_days": 300}
    weights = {"purchase_days_28d": 1, "spend_28d": 1}
    assert said(weights, purchase_days_28d=0, **away) == ["bought on none of the last 28, on 2 of the 28 before"]


def test_who_brought_back_as_much_as_they_bought_is_not_told_that_they_spent_nothing() -> None:
    came = {"spend_28d_before": 60, "purchase_days_28d": 1, "tenure_days": 300}
    for spent in (0, -5):
        assert said({"spend_28d": 1}, spend_28d=spent, **came) == []
    assert said({"return_share": 1}, return_share=1.5) == []
    assert said({"return_share": 1}, return_share=1) == ["100 % of what they bought was brought back"]


def test_a_pace_that_reads_the_same_is_no_news() -> None:
    long = {"gap_mean_days": 2.0, "tenure_days": 300}
    assert said({"gap_recent_days": 1}, gap_recent_days=2.24, **long) == []
    assert said({"gap_recent_days": 1}, gap_recent_days=2.5, **long) == [
        "lately came every 2.5 days, over all the time every 2 days"
    ]
    assert said({"gap_recent_days": -1}, gap_recent_days=1.8, **long) == []


def test_where_everything_is_of_one_category_nobody_is_told_so() -> None:
    """In a shop that names no categories all of its products count as one."""
    assert said({"category_count": 1}, category_count=1) == []
    assert said({"category_count": 1}, category_count=2) == ["buys from only 2 categories"]


def test_a_message_is_no_campaign_and_none_is_told_of_where_no_campaign_ever_came() -> None:
    for direction, silent, sentence in (
        (-1, 3, "a message reached them 3 days ago"),
        (1, 70, "the last message reached them 70 days ago"),
    ):
        given = {"received_28d": direction}
        assert said(given, received_recency_days=silent, campaigns_received=1) == [sentence]
        assert said(given, received_recency_days=silent, campaigns_received=0) == []


def test_where_customers_come_seldom_a_quarter_is_compared() -> None:
    figures = {"spend_90d": 30, "spend_90d_before": 50, "spend_28d": 9, "spend_28d_before": 3}
    assert said({"spend_90d": 1}, horizon_days=90, **figures) == [
        "spent 40 % less in the last 90 days than in the 90 before"
    ]


def test_a_category_left_on_the_shelf_is_named() -> None:
    asked = []

    def left(places: list[int]) -> dict[int, list[tuple[str, float]]]:
        asked.extend(places)
        return {0: [("dairy", 61.0)]}

    assert said({"repeat_share_28d": 1}, left=left, category_count=40) == [
        "no longer buys dairy, last bought 61 days ago"
    ]
    assert said({"repeat_share_28d": -1}, left=left, category_count=40) == ["buys from 40 categories"]
    assert asked == [0]  # nobody asks where baskets are good news


def shelf(**lists: list[float]) -> pd.DataFrame:
    """A customer, last here 4 days ago, with figures of the categories dairy and bread."""
    usual = {name: [1.0, 1.0] for name in category_history.LIST_NUMBERS}
    columns = {f"need_{name}": [np.array(values, float)] for name, values in (usual | lists).items()}
    return pd.DataFrame({"customer_key": [7], "as_of": [pd.Timestamp("2026-06-01", tz="UTC")], "recency_days": [4.0],
                         "categories": [np.array(["dairy", "bread"], object)], **columns})  # fmt: skip


def test_what_was_left_behind_while_they_came_is_dropped() -> None:
    habit = {"times": [9, 8], "gap_means": [7, 7], "gap_maxima": [20, 20], "first_days": [90, 90]}
    assert lapsed_categories.find_lapsed(shelf(**habit, last_days=[33, 6])) == {
        0: [("dairy", 33.0)]
    }  # 29 days: four gaps
    assert lapsed_categories.find_lapsed(shelf(**habit, last_days=[31, 6])) == {}  # 27 days: less than four
    assert lapsed_categories.find_lapsed(shelf(**habit, last_days=[33, 40])) == {0: [("dairy", 33.0), ("bread", 40.0)]}
    for fleeting in ({"times": [4, 4]}, {"first_days": [60, 60]}, {"gap_maxima": [30, 40]}):
        assert lapsed_categories.find_lapsed(shelf(**habit | fleeting, last_days=[33, 40])) == {}
    assert (
        lapsed_categories.find_lapsed(shelf(**habit | {"first_days": [300, 300]}, last_days=[121, 6])) == {}
    )  # no news
    assert lapsed_categories.find_lapsed(shelf(**habit, last_days=[33, 40]), {"bread"}) == {0: [("dairy", 33.0)]}


COLUMNS = [
    *recency_frequency.columns(ledger_lines.VISIBLE_DAYS),
    *spend.columns(ledger_lines.VISIBLE_DAYS),
    *product_mix.columns(ledger_lines.VISIBLE_DAYS),
    *engagement.column_names(),
]


def test_every_feature_but_the_weekday_of_the_moment_has_a_family() -> None:
    assert [name for name in COLUMNS if churn_reasons.find_family(name) is None] == ["as_of_weekday"]


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_good_news_never_speaks_for_staying_away(direction: float) -> None:
    """Of customers whose figures all got worse nothing good is said, and of the others nothing bad."""
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
        assert said({name: direction}, **(better if direction > 0 else worse)) == [], name
        spoken = said({name: direction}, **(worse if direction > 0 else better))
        assert not spoken or not spoken[0].startswith(churn_reasons.COUNTER_PREFIX)
    assert len({said({name: direction}, **(worse if direction > 0 else better))[0] for name in STRONG}) == len(STRONG)


STRONG = (
    "recency_days",
    "purchase_days",
    "purchase_days_28d",
    "spend_28d",
    "repeat_share",
    "received_28d",
    "device_28d",
)


def test_nobody_is_told_anything_of_figures_that_are_not_there() -> None:
    for direction in (1.0, -1.0):
        for name in COLUMNS:
            assert said({name: direction}, customer_key=1) == []
            assert said({name: direction}, **dict.fromkeys(COLUMNS, NAN)) == []


def test_halves_fall_between_two_days() -> None:
    assert said({"recency_days": 1}, recency_days=9, gap_median_days=2.5) == [
        "comes about every 2.5 days, silent for 9"
    ]


#: How a sentence reads, and which figures its numbers are; whether they lie so that it is bad news.
READS: dict[str, Callable[..., bool]] = {
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


def read(text: str) -> float:
    """A number as the sentences write it."""
    return WORDS[text] if text in WORDS else float(text.removesuffix(" days ago"))


def test_every_sentence_is_true_of_the_customers_own_figures() -> None:
    random = np.random.default_rng(5)
    count = 400
    frame = pd.DataFrame({name: random.integers(0, 30, count).astype(float) for name in COLUMNS})
    frame["tenure_days"] = random.integers(30, 300, count).astype(float)
    names = ["recency_days", "purchase_days", "purchase_days_28d", "tenure_days"]
    weights = pd.DataFrame(random.normal(size=(count, len(names))), columns=names)
    spoken = [(row, *reason) for row, told in enumerate(churn_reasons.explain_churn(weights, frame)) for reason in told]
    checked = 0
    for row, sentence, weight in spoken:
        answer = weights.iloc[row].sum()
        assert sentence.startswith(churn_reasons.COUNTER_PREFIX) is bool(weight * answer < 0)
        for pattern, bad in READS.items():
            if found := re.match(pattern, sentence.removeprefix(churn_reasons.COUNTER_PREFIX)):
                figures = {name: read(text) for name, text in found.groupdict().items()}
                assert frame.loc[row, list(figures)].to_dict() == figures, sentence
                assert bad(**figures) is bool(weight > 0), sentence
                checked += 1
                break
        else:
            assert re.match(r"(yet )?(lately came|the last two visits|bought on|bought)", sentence), sentence
    assert checked > count
