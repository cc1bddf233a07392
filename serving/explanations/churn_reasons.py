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

from serving.explanations import basket_reasons, engagement_reasons, visit_reasons
from serving.explanations.reason_text import CustomerFeatures, ReasonFamily

Floats = NDArray[np.float64]
#: A sentence and what its family adds to the log odds of no purchase.
WeightedReason = tuple[str, float]
#: What customers at these places of the frame no longer buy, and since how many days.
LapsedLoader = Callable[[Sequence[int]], Mapping[int, Sequence[tuple[str, float]]]]

MAX_REASONS = 3
#: Log odds that are nobody's reason: they move one chance in two by a fiftieth.
MIN_WEIGHT = 0.08
COUNTER_PREFIX = "yet "
FAMILIES: tuple[ReasonFamily, ...] = (
    visit_reasons.RECENCY, visit_reasons.FREQUENCY, visit_reasons.RECENT_CHANGE, visit_reasons.SPEND, basket_reasons.BASKETS, basket_reasons.TENURE, basket_reasons.USUAL_WEEKDAY,
    basket_reasons.DISCOUNTS, basket_reasons.RETURNS, engagement_reasons.CAMPAIGNS, engagement_reasons.MESSAGES, engagement_reasons.BROWSING, engagement_reasons.DEVICE,
    engagement_reasons.COMPLAINTS, engagement_reasons.ENQUIRIES,
)  # fmt: skip
#: Beginnings of feature names, and whose they are: the longest counts. What has no family is nobody's reason.
FAMILY_BY_PREFIX = {
    **dict.fromkeys(("recency", "overdue", "gap_max", "gap_long"), visit_reasons.RECENCY),
    **dict.fromkeys(("gap_", "purchase_rate", "purchase_days", "active_weeks", "baskets_"), visit_reasons.FREQUENCY),
    "purchase_days_decayed_120": visit_reasons.FREQUENCY,
    **dict.fromkeys(("purchase_days_", "gap_trend", "gap_recent", "gap_last"), visit_reasons.RECENT_CHANGE),
    **dict.fromkeys(("spend", "basket_"), visit_reasons.SPEND),
    **dict.fromkeys(("repeat", "products", "department", "category", "brand", "store"), basket_reasons.BASKETS),
    **dict.fromkeys(("tenure", "span"), basket_reasons.TENURE),
    "weekday": basket_reasons.USUAL_WEEKDAY,
    "discount": basket_reasons.DISCOUNTS,
    "return": basket_reasons.RETURNS,
    **dict.fromkeys(("received", "redeemed", "campaigns", "response", "contact_"), engagement_reasons.CAMPAIGNS),
    **dict.fromkeys(("opened", "clicked", "unsubscribed"), engagement_reasons.MESSAGES),
    **dict.fromkeys(("viewed", "visited"), engagement_reasons.BROWSING),
    "device": engagement_reasons.DEVICE,
    "complaint": engagement_reasons.COMPLAINTS,
    **dict.fromkeys(("enquir", "unanswered"), engagement_reasons.ENQUIRIES),
}


def explain_churn(
    weights: pd.DataFrame, frame: pd.DataFrame, *, horizon_days: int = 28, lapsed_loader: LapsedLoader | None = None
) -> list[list[WeightedReason]]:
    """Up to three reasons a customer, those for the answer first, each part strongest first.

    `weights` has a row for each of the frame's and a column a feature: what it adds to the log odds of no purchase.
    """
    if not len(frame):
        return []
    family_weights = sum_by_family(weights)
    direction = np.where(weights.to_numpy(np.float64).sum(axis=1) < 0, -1.0, 1.0)
    numbers = frame.select_dtypes("number")
    columns = dict(zip(map(str, numbers), numbers.to_numpy(np.float64).T, strict=True))
    lapsed_by_row = _load_lapsed(family_weights, lapsed_loader)
    customers = (CustomerFeatures(columns, row, horizon_days, lapsed_by_row.get(row, ())) for row in range(len(frame)))
    return [_select_reasons(*each) for each in zip(customers, family_weights, direction, strict=True)]


def sum_by_family(weights: pd.DataFrame) -> Floats:
    """What each of FAMILIES adds, a row a customer (n, families)."""
    members = np.zeros((weights.shape[1], len(FAMILIES)))
    for column, name in enumerate(weights.columns):
        family = find_family(str(name))
        if family is not None:
            members[column, family] = 1.0
    return np.asarray(weights.to_numpy(np.float64) @ members)


@cache
def find_family(feature: str) -> int | None:
    """The place in FAMILIES of a feature's family; None for one that nobody could be told of."""
    prefixes = [prefix for prefix in FAMILY_BY_PREFIX if feature.startswith(prefix)]
    return FAMILIES.index(FAMILY_BY_PREFIX[max(prefixes, key=len)]) if prefixes else None


def _load_lapsed(
    family_weights: Floats, lapsed_loader: LapsedLoader | None
) -> Mapping[int, Sequence[tuple[str, float]]]:
    """What is no longer bought, asked only where baskets may have to speak for staying away."""
    if lapsed_loader is None:
        return {}
    baskets = family_weights[:, FAMILIES.index(basket_reasons.BASKETS)]
    stronger = (np.abs(family_weights) > np.abs(baskets)[:, None]).sum(axis=1)
    rows = np.flatnonzero((baskets > MIN_WEIGHT) & (stronger < 2 * MAX_REASONS))
    return lapsed_loader(rows.tolist()) if len(rows) else {}


def _select_reasons(features: CustomerFeatures, family_weights: Floats, direction: float) -> list[WeightedReason]:
    selected: list[WeightedReason] = []
    for family in np.argsort(-np.abs(family_weights), kind="stable"):
        weight = float(family_weights[family])
        if len(selected) == MAX_REASONS or not abs(weight) > MIN_WEIGHT:
            break
        text = FAMILIES[family].say(features, weight)
        if text and all(text not in earlier_text for earlier_text, _ in selected):
            selected.append((text if weight * direction > 0 else f"{COUNTER_PREFIX}{text}", weight))
    return sorted(selected, key=lambda reason: reason[1] * direction < 0)
