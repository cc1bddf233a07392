"""Reasons in words: why a customer is on a list, or a product on theirs, from that customer's own figures.

Every sentence states figures the shop can look up; none repeats what the model guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from customers import money
from customers.reasons import REASONS, own
from customers.reasons import ago as _ago
from customers.reasons import often as _times

#: One customer's figures by feature name; NaN for what is not known.
Figure = Callable[[str], float]
Sentence = Callable[[Figure], str | None]

MOST_REASONS = 3
#: Why an offer is made where no purchases of the customer's own speak for it.
OFFERS = {
    "new": REASONS["related"],
    "received": "they received its campaign",
    "popular": "it is made to everybody",
}
NO_OFFERS = "the shop has no offers; load some: regulars load offers FILE"


def why_product(source: str, times: float = math.nan, last_days: float = math.nan, first_days: float = math.nan) -> str:
    """Why a product is on a customer's list; `times` is days on which they bought it."""
    return own(times, last_days, first_days) if source == "again" else REASONS[source]


def why_together(together: int, followed: int, own: bool) -> str:
    """Why a product goes with another: how many customers bought both at once, or it first thing after."""
    if not own:
        return "goes with what sells best of its kind"
    at_once = f"{_customers(together)} bought both at once" if together else None
    after = f"{_customers(followed)} bought it for the first time on the next visit" if followed else None
    return ", ".join(filter(None, (at_once, after)))


def why_instead(how: str, kind: str | None, price: float, other_price: float, currency: str) -> str:
    """Why a product may be taken instead of another: it is of one kind, and what it and the other go for."""
    said = (
        f"{'dearer, and ' if how == 'upsell' else ''}of the same kind: {kind}" if kind else "bought by like customers"
    )
    if not (price > 0 and other_price > 0):
        return said
    instead, of = (f"{amount:.{money.EXPONENTS[currency]}f}" for amount in (price, other_price))
    return f"{said}; {instead} instead of {of} {currency}"


def _customers(count: int) -> str:
    return f"{count} customer" if count == 1 else f"{count} customers"


@lru_cache(maxsize=100_000)
def why_offer(times: float, last_days: float) -> str:
    """Why an offer is made; `times` is days on which they bought what it is for."""
    return f"bought what it is for {_times(times)}, last {_ago(last_days)}" if times >= 1 else OFFERS["new"]


def why_drifting(explained: Sequence[Sequence[str]], columns: Mapping[str, np.ndarray]) -> list[list[str]]:
    """Up to three sentences a customer; `explained` names each one's weightiest features, in that order."""
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
    if not gap >= 1:
        return f"bought only once, {_ago(silent)}"
    return f"comes about every {_days(gap) if gap > 1 else 'day'}, silent for {_number(silent)}"


def _longest(figure: Figure) -> str | None:
    longest, silent = figure("gap_max_days"), figure("recency_days")
    if not (math.isfinite(longest) and math.isfinite(silent)):
        return None
    if silent > longest:
        return f"never stayed away this long before, {_days(longest)} at most"
    return f"has stayed away for {_days(longest)} before and come back"


def _slowing(figure: Figure) -> str | None:
    lately, usual = figure("gap_recent_days"), figure("gap_mean_days")
    if not (lately >= 1 and usual >= 1):
        return None
    return f"lately came every {_days(lately)}, over all the time every {_number(usual)}"


def _last_gap(figure: Figure) -> str | None:
    last, usual = figure("gap_last_days"), figure("gap_median_days")
    if not last + usual >= 2:
        return None
    return f"the last two visits were {_days(last)} apart, usually {_number(usual)}"


def _visits(figure: Figure) -> str | None:
    now, before = figure("purchase_days_28d"), figure("purchase_days_28d_before")
    if not math.isfinite(now):
        return None
    text = f"bought on {_days(now)} of the last 28"
    # For somebody new, the weeks before their first visit say nothing.
    return f"{text}, on {_number(before)} of the 28 before" if figure("tenure_days") >= 56 else text


def _tenure(figure: Figure) -> str | None:
    tenure = figure("tenure_days")
    return f"first bought {_days(tenure)} ago" if tenure >= 1 else None


def _history(figure: Figure) -> str | None:
    bought = figure("purchase_days")
    return f"has bought on {_days(bought)} in all" if bought >= 1 else None


def _spending(figure: Figure) -> str | None:
    now, before = figure("spend_28d"), figure("spend_28d_before")
    if not (before > 0 and now >= 0):
        return None
    change = round(100 * (now - before) / before)
    if change == 0:
        return "spent as much in the last 28 days as in the 28 before"
    compared = f"{abs(change)} % {'less' if change < 0 else 'more'}"
    return f"spent {compared} in the last 28 days than in the 28 before"


def _last_basket(figure: Figure) -> str | None:
    last, usual = figure("basket_value_last"), figure("basket_value_mean")
    if not (usual > 0 and last >= 0):
        return None
    return f"the last basket was worth {round(100 * last / usual)} % of the usual one"


def _weekday(figure: Figure) -> str | None:
    shares = [figure(f"weekday_{day}_share") for day in range(len(WEEKDAYS))]
    if not all(map(math.isfinite, shares)):
        return None
    return f"comes most on {WEEKDAYS[shares.index(max(shares))]}, {round(100 * max(shares))} % of their days"


def _favourites(figure: Figure) -> str | None:
    return _share(figure("repeat_share"), "of the lines they buy are products they bought before")


def _discounts(figure: Figure) -> str | None:
    return _share(figure("discount_share"), "of the full price is saved by discounts")


def _returns(figure: Figure) -> str | None:
    return _share(figure("return_share"), "of what they bought was brought back")


def _share(share: float, of_what: str) -> str | None:
    return f"{round(100 * share)} % {of_what}" if share >= 0.005 else None


def _days(number: float) -> str:
    return f"{_number(number)} day" if _number(number) == "1" else f"{_number(number)} days"


def _number(number: float) -> str:
    """Whole where it is whole; halves where a median falls between two days."""
    rounded = round(number * 2) / 2
    return str(int(rounded)) if rounded == int(rounded) else f"{rounded:.1f}"


WEEKDAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
TOPICS: dict[str, Sentence] = {
    "silence": _silence,
    "longest": _longest,
    "slowing": _slowing,
    "last gap": _last_gap,
    "visits": _visits,
    "tenure": _tenure,
    "history": _history,
    "spending": _spending,
    "last basket": _last_basket,
    "weekday": _weekday,
    "favourites": _favourites,
    "discounts": _discounts,
    "returns": _returns,
}
#: Beginnings of feature names, and what is said about them; what has no topic is left to the next feature.
TOPIC_OF = {
    "recency": "silence",
    "overdue": "silence",
    "overdue_max": "longest",
    "gap_": "silence",
    "gap_max": "longest",
    "gap_long": "longest",
    "gap_trend": "slowing",
    "gap_recent": "slowing",
    "gap_last": "last gap",
    "purchase_rate": "silence",
    "purchase_days": "history",
    "purchase_days_": "visits",
    "active_weeks": "tenure",
    "tenure": "tenure",
    "span": "tenure",
    "spend_": "spending",
    "spend_last": "last basket",
    "basket_value": "last basket",
    "weekday": "weekday",
    "repeat": "favourites",
    "products_": "favourites",
    "discount": "discounts",
    "return": "returns",
}
