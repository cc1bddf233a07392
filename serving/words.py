"""Reasons in words: why a customer is on a list, or a product on theirs, from that customer's own figures.

Every sentence states figures the shop can look up; none repeats what the model guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

#: One customer's figures by feature name; NaN for what is not known.
Figure = Callable[[str], float]
Sentence = Callable[[Figure], str | None]

MOST_REASONS = 3
SIMILAR = "customers with similar baskets buy it"
BESTSELLER = "sells best in the shop"


def why_product(source: str, times: float = math.nan, last_days: float = math.nan) -> str:
    """Why a product is on a customer's list; `times` is days on which they bought it."""
    if source == "again" and times >= 1:
        return f"bought {_times(times)}, last {_ago(last_days)}" if times > 1 else f"bought once, {_ago(last_days)}"
    return SIMILAR if source == "new" else BESTSELLER


def why_drifting(explained: Sequence[Sequence[str]], columns: Mapping[str, np.ndarray]) -> list[list[str]]:
    """Up to three sentences a customer: `explained` names each one's weightiest features, weightiest first."""
    return [_sentences(names, _figures(columns, row)) for row, names in enumerate(explained)]


def _figures(columns: Mapping[str, np.ndarray], row: int) -> Figure:
    def figure(name: str) -> float:
        return float(columns[name][row]) if name in columns else math.nan

    return figure


def _sentences(names: Iterable[str], figure: Figure) -> list[str]:
    """What can be said about these features, one sentence a topic."""
    topics = dict.fromkeys(_topic(name) for name in names)
    said = (TOPICS[topic](figure) for topic in topics if topic in TOPICS)
    return [sentence for sentence in said if sentence][:MOST_REASONS]


def _topic(feature: str) -> str:
    """The topic that a feature belongs to, by the longest beginning that has one; itself where none has."""
    beginnings = [start for start in TOPIC_OF if feature.startswith(start)]
    return TOPIC_OF[max(beginnings, key=len)] if beginnings else feature


def _silence(figure: Figure) -> str | None:
    gap, silent = figure("gap_median_days"), figure("recency_days")
    if not math.isfinite(silent):
        return None
    if not math.isfinite(gap) or gap < 1:
        return f"silent for {_days(silent)}" if silent >= 1 else "bought today"
    return f"comes about every {_days(gap)}, silent for {_number(silent)}"


def _visits(figure: Figure) -> str | None:
    now, before = figure("purchase_days_28d"), figure("purchase_days_prev_28d")
    if not math.isfinite(now):
        return None
    text = f"bought on {_days(now)} of the last 28"
    return text if not math.isfinite(before) else f"{text}, on {_number(before)} of the 28 before"


def _tenure(figure: Figure) -> str | None:
    tenure = figure("tenure_days")
    return f"first bought {_days(tenure)} ago" if tenure >= 1 else None


def _history(figure: Figure) -> str | None:
    bought = figure("purchase_days")
    return f"has bought on {_days(bought)} in all" if bought >= 1 else None


def _trend(figure: Figure) -> str | None:
    last, usual = figure("gap_last_days"), figure("gap_median_days")
    if not (math.isfinite(last) and math.isfinite(usual)):
        return None
    return f"the last two visits were {_days(last)} apart, usually {_number(usual)}"


def _longest(figure: Figure) -> str | None:
    longest = figure("gap_max_days")
    return f"never stayed away for more than {_days(longest)} before" if longest >= figure("recency_days") else (
        f"has not stayed away this long before, at most {_days(longest)}" if math.isfinite(longest) else None
    )


def _days(number: float) -> str:
    return f"{_number(number)} day" if _number(number) == "1" else f"{_number(number)} days"


def _times(number: float) -> str:
    return "twice" if round(number) == 2 else f"{round(number)} times"


def _ago(days: float) -> str:
    if not math.isfinite(days):
        return "some time ago"
    return {0: "today", 1: "yesterday"}.get(round(days), f"{round(days)} days ago")


def _number(number: float) -> str:
    """Whole where it is whole; halves where a median falls between two days."""
    rounded = round(number * 2) / 2
    return str(int(rounded)) if rounded == int(rounded) else f"{rounded:.1f}"


TOPICS: dict[str, Sentence] = {
    "silence": _silence,
    "visits": _visits,
    "tenure": _tenure,
    "history": _history,
    "trend": _trend,
    "longest": _longest,
}
#: Beginnings of feature names, and what is said about them.
TOPIC_OF = {
    "recency": "silence",
    "overdue": "silence",
    "gap_median": "silence",
    "gap_mean": "silence",
    "gap_cv": "silence",
    "gap_trend": "trend",
    "gap_last": "trend",
    "gap_max": "longest",
    "purchase_days": "history",
    "purchase_days_": "visits",
    "decayed": "visits",
    "tenure": "tenure",
    "span": "tenure",
}
