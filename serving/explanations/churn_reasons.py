"""Why: what moved a model's answer about a customer, family by family, in sentences true of that customer.

What each feature adds to the log odds of no purchase is summed by family. The strongest families speak, three at most;
one that speaks against the answer says "yet". A family that speaks for staying away says only what is bad news, one
that speaks for coming back only what is good; it is left out where nothing of that kind is true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serving import dealings, facts, habits
from serving.sentences import Family, Told

Floats = NDArray[np.float64]
#: A sentence and what its family adds to the log odds of no purchase.
Reason = tuple[str, float]
#: What customers at these places of the frame no longer buy, and since how many days.
Dropped = Callable[[Sequence[int]], Mapping[int, Sequence[tuple[str, float]]]]

MOST_REASONS = 3
#: Log odds that are nobody's reason: they move one chance in two by a fiftieth.
TRIFLE = 0.08
AGAINST = "yet "
FAMILIES: tuple[Family, ...] = (
    facts.SILENCE, facts.OFTEN, facts.LATELY, facts.SPENDING, habits.BASKETS, habits.TENURE, habits.WEEKDAY,
    habits.DISCOUNTS, habits.RETURNS, dealings.CAMPAIGNS, dealings.MESSAGES, dealings.VIEWS, dealings.DEVICE,
    dealings.COMPLAINTS, dealings.ANSWERS,
)  # fmt: skip
#: Beginnings of feature names, and whose they are: the longest counts. What has no family is nobody's reason.
FAMILY_OF = {
    **dict.fromkeys(("recency", "overdue", "gap_max", "gap_long"), facts.SILENCE),
    **dict.fromkeys(("gap_", "purchase_rate", "purchase_days", "active_weeks", "baskets_"), facts.OFTEN),
    "purchase_days_decayed_120": facts.OFTEN,
    **dict.fromkeys(("purchase_days_", "gap_trend", "gap_recent", "gap_last"), facts.LATELY),
    **dict.fromkeys(("spend", "basket_"), facts.SPENDING),
    **dict.fromkeys(("repeat", "products", "department", "category", "brand", "store"), habits.BASKETS),
    **dict.fromkeys(("tenure", "span"), habits.TENURE),
    "weekday": habits.WEEKDAY,
    "discount": habits.DISCOUNTS,
    "return": habits.RETURNS,
    **dict.fromkeys(("received", "redeemed", "campaigns", "response", "contact_"), dealings.CAMPAIGNS),
    **dict.fromkeys(("opened", "clicked", "unsubscribed"), dealings.MESSAGES),
    **dict.fromkeys(("viewed", "visited"), dealings.VIEWS),
    "device": dealings.DEVICE,
    "complaint": dealings.COMPLAINTS,
    **dict.fromkeys(("enquir", "unanswered"), dealings.ANSWERS),
}


def reasons(
    weights: pd.DataFrame, frame: pd.DataFrame, *, horizon_days: int = 28, dropped: Dropped | None = None
) -> list[list[Reason]]:
    """Up to three reasons a customer, those for the answer first, each part strongest first.

    `weights` has a row for each of the frame's and a column a feature: what it adds to the log odds of no purchase.
    """
    if not len(frame):
        return []
    families = by_family(weights)
    towards = np.where(weights.to_numpy(np.float64).sum(axis=1) < 0, -1.0, 1.0)
    numbers = frame.select_dtypes("number")
    columns = dict(zip(map(str, numbers), numbers.to_numpy(np.float64).T, strict=True))
    left = _left(families, dropped)
    told = (Told(columns, row, horizon_days, left.get(row, ())) for row in range(len(frame)))
    return [_spoken(*each) for each in zip(told, families, towards, strict=True)]


def by_family(weights: pd.DataFrame) -> Floats:
    """What each of FAMILIES adds, a row a customer (n, families)."""
    members = np.zeros((weights.shape[1], len(FAMILIES)))
    for place, name in enumerate(weights.columns):
        found = family_of(str(name))
        if found is not None:
            members[place, found] = 1.0
    return np.asarray(weights.to_numpy(np.float64) @ members)


@cache
def family_of(feature: str) -> int | None:
    """The place in FAMILIES of a feature's family; None for one that nobody could be told of."""
    beginnings = [start for start in FAMILY_OF if feature.startswith(start)]
    return FAMILIES.index(FAMILY_OF[max(beginnings, key=len)]) if beginnings else None


def _left(families: Floats, dropped: Dropped | None) -> Mapping[int, Sequence[tuple[str, float]]]:
    """What is no longer bought, asked only where baskets may have to speak for staying away."""
    if dropped is None:
        return {}
    baskets = families[:, FAMILIES.index(habits.BASKETS)]
    stronger = (np.abs(families) > np.abs(baskets)[:, None]).sum(axis=1)
    rows = np.flatnonzero((baskets > TRIFLE) & (stronger < 2 * MOST_REASONS))
    return dropped(rows.tolist()) if len(rows) else {}


def _spoken(told: Told, families: Floats, towards: float) -> list[Reason]:
    said: list[Reason] = []
    for place in np.argsort(-np.abs(families), kind="stable"):
        weight = float(families[place])
        if len(said) == MOST_REASONS or not abs(weight) > TRIFLE:
            break
        sentence = FAMILIES[place].say(told, weight)
        if sentence and all(sentence not in told_already for told_already, _ in said):
            said.append((sentence if weight * towards > 0 else f"{AGAINST}{sentence}", weight))
    return sorted(said, key=lambda reason: reason[1] * towards < 0)
