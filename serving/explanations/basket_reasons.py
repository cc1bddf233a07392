"""Basket reasons: what a customer buys, and their tenure, weekdays, discounts and returns."""

from __future__ import annotations

import math

from customers.reports.recommendation_reasons import lapsed_category_reason
from serving.explanations.reason_text import CustomerFeatures, ReasonFamily, day_count, format_count

WEEKDAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
#: Limits for few and for many categories, for a shop that has hundreds.
FEW_CATEGORIES, MANY_CATEGORIES = 5, 15
#: A customer of less tenure counts as recent.
SEASON_DAYS = 90


def lapsed_category(features: CustomerFeatures) -> str | None:
    """A category that the customer bought often and then left out of every basket."""
    return next((lapsed_category_reason(*each) for each in features.lapsed_categories), None)


def fewer_repeats(features: CustomerFeatures) -> str | None:
    """The share of repeat purchases fell by at least 10 percentage points in the last 28 days."""
    recent_share, usual_share = features("repeat_share_28d"), features("repeat_share")
    if not recent_share <= usual_share - 0.1:
        return None
    recent_text, usual_text = _percent(recent_share), _percent(usual_share)
    return f"{recent_text} of the lines of the last 28 days are of products bought before, usually {usual_text}"


def few_categories(features: CustomerFeatures) -> str | None:
    """Few categories; not for a single one, which may be all that a shop without categories has."""
    category_count = features("category_count")
    return (
        f"buys from only {format_count(category_count)} categories" if 2 <= category_count <= FEW_CATEGORIES else None
    )


def many_categories(features: CustomerFeatures) -> str | None:
    """Many categories."""
    category_count = features("category_count")
    return f"buys from {format_count(category_count)} categories" if category_count >= MANY_CATEGORIES else None


def new_products(features: CustomerFeatures) -> str | None:
    """The customer bought new products in the last 28 days."""
    new_count = features("products_new_28d")
    if not (new_count >= 1 and features.has_tenure(2 * 28)):
        return None
    noun = "product" if new_count == 1 else "products"
    return f"bought {format_count(new_count)} {noun} for the first time in the last 28 days"


def repeat_purchases(features: CustomerFeatures) -> str | None:
    """At least 30 % of the lines are of products bought before."""
    share = features("repeat_share")
    return f"{_percent(share)} of the lines they buy are products they bought before" if share >= 0.3 else None


def recent_customer(features: CustomerFeatures) -> str | None:
    """A tenure of less than SEASON_DAYS."""
    tenure = features("tenure_days")
    return f"first bought {day_count(tenure)} ago" if 1 <= tenure < SEASON_DAYS else None


def long_tenure(features: CustomerFeatures) -> str | None:
    """A tenure of at least SEASON_DAYS."""
    tenure = features("tenure_days")
    return f"first bought {day_count(tenure)} ago" if tenure >= SEASON_DAYS else None


def usual_weekday(features: CustomerFeatures) -> str | None:
    """The most frequent weekday, if at least 25 % of the purchase days fall on it."""
    shares = [features(f"weekday_{day}_share") for day in range(len(WEEKDAYS))]
    if not (all(map(math.isfinite, shares)) and max(shares) >= 0.25 and features("purchase_days") >= 4):
        return None
    return f"comes most on {WEEKDAYS[shares.index(max(shares))]}, {_percent(max(shares))} of their days"


def discount_share(features: CustomerFeatures) -> str | None:
    """The share of the full price that discounts save, from 5 %."""
    share = features("discount_share")
    return f"{_percent(share)} of the full price is saved by discounts" if share >= 0.05 else None


def return_share(features: CustomerFeatures) -> str | None:
    """The share of purchases returned; over 1, from returns of sales before the data begin, it gives no reason."""
    share = features("return_share")
    return f"{_percent(share)} of what they bought was brought back" if 0.005 <= share <= 1 else None


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"


BASKETS = ReasonFamily(
    risk_reasons=(lapsed_category, fewer_repeats, few_categories),
    retention_reasons=(new_products, many_categories, repeat_purchases),
)
TENURE = ReasonFamily(risk_reasons=(recent_customer,), retention_reasons=(long_tenure,))
#: The same reason for both directions.
USUAL_WEEKDAY = ReasonFamily(risk_reasons=(usual_weekday,), retention_reasons=(usual_weekday,))
DISCOUNTS = ReasonFamily(risk_reasons=(discount_share,), retention_reasons=(discount_share,))
RETURNS = ReasonFamily(risk_reasons=(return_share,), retention_reasons=())
