"""Reasons of a churn score: feature contributions summed by family, each family as a sentence true of the customer.

A contribution is what a feature adds to the log odds of no purchase. The strongest families give a reason, three at
most; the reason of a family that works against the score begins with "yet". A family that raises the churn probability
gives only a risk reason, one that lowers it only a retention reason, and none where no such sentence is true.
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
#: A reason text, and what its family adds to the log odds of no purchase.
WeightedReason = tuple[str, float]
#: For rows of the frame: the categories that the customer no longer buys, each with the days since the last purchase.
LapsedLoader = Callable[[Sequence[int]], Mapping[int, Sequence[tuple[str, float]]]]

MAX_REASONS = 3
#: Smaller contributions give no reason: these log odds move a probability of 0.5 by 0.02.
MIN_WEIGHT = 0.08
COUNTER_PREFIX = "yet "
FAMILIES: tuple[ReasonFamily, ...] = (
    visit_reasons.RECENCY,
    visit_reasons.FREQUENCY,
    visit_reasons.RECENT_CHANGE,
    visit_reasons.SPEND,
    basket_reasons.BASKETS,
    basket_reasons.TENURE,
    basket_reasons.USUAL_WEEKDAY,
    basket_reasons.DISCOUNTS,
    basket_reasons.RETURNS,
    engagement_reasons.CAMPAIGNS,
    engagement_reasons.MESSAGES,
    engagement_reasons.BROWSING,
    engagement_reasons.DEVICE,
    engagement_reasons.COMPLAINTS,
    engagement_reasons.ENQUIRIES,
)
#: Family by prefix of the feature name; the longest prefix wins. A feature without a family gives no reason.
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
    """Up to three reasons per customer: first those for the score, then those against it, each strongest first.

    frame: features as columns, a row per customer. weights: a row per row of the frame and a column per feature, with
    what the feature adds to the log odds of no purchase.
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
    """What each of FAMILIES adds to the log odds of no purchase, (n, len(FAMILIES)); weights: a column per feature."""
    members = np.zeros((weights.shape[1], len(FAMILIES)))
    for column, name in enumerate(weights.columns):
        family = find_family(str(name))
        if family is not None:
            members[column, family] = 1.0
    return np.asarray(weights.to_numpy(np.float64) @ members)


@cache
def find_family(feature: str) -> int | None:
    """The index in FAMILIES of a feature's family; None for a feature that gives no reason."""
    prefixes = [prefix for prefix in FAMILY_BY_PREFIX if feature.startswith(prefix)]
    return FAMILIES.index(FAMILY_BY_PREFIX[max(prefixes, key=len)]) if prefixes else None


def _load_lapsed(
    family_weights: Floats, lapsed_loader: LapsedLoader | None
) -> Mapping[int, Sequence[tuple[str, float]]]:
    """The lapsed categories, loaded only for rows where the basket family may have to give a risk reason."""
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
        text = FAMILIES[family].describe(features, weight)
        if text and all(text not in earlier_text for earlier_text, _ in selected):
            selected.append((text if weight * direction > 0 else f"{COUNTER_PREFIX}{text}", weight))
    return sorted(selected, key=lambda reason: reason[1] * direction < 0)
