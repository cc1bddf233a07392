"""Habits: what a customer's baskets are made of, how long they have been coming, and on which days."""

from __future__ import annotations

import math

from customers.reports.recommendation_reasons import lapsed_category_reason
from serving.explanations.reason_text import CustomerFeatures, ReasonFamily, day_count, format_count

WEEKDAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
#: Few and many categories, for a shop that has hundreds.
FEW_CATEGORIES, MANY_CATEGORIES = 5, 15
#: Somebody who has been coming for a season is no newcomer.
SEASON_DAYS = 90


def lapsed_category(features: CustomerFeatures) -> str | None:
    """A category that they used to buy often, and did not any more when they came."""
    return next((lapsed_category_reason(*each) for each in features.lapsed_categories), None)


def fewer_repeats(features: CustomerFeatures) -> str | None:
    """They come less for what they used to buy here."""
    recent_share, usual_share = features("repeat_share_28d"), features("repeat_share")
    if not recent_share <= usual_share - 0.1:
        return None
    return f"{_percent(recent_share)} of the lines of the last 28 days are of products bought before, usually {_percent(usual_share)}"


def few_categories(features: CustomerFeatures) -> str | None:
    """They come for little; not said of one category, which may be all that a shop without categories has."""
    category_count = features("category_count")
    return (
        f"buys from only {format_count(category_count)} categories" if 2 <= category_count <= FEW_CATEGORIES else None
    )


def many_categories(features: CustomerFeatures) -> str | None:
    """They come for much."""
    category_count = features("category_count")
    return f"buys from {format_count(category_count)} categories" if category_count >= MANY_CATEGORIES else None


def new_products(features: CustomerFeatures) -> str | None:
    """They bought what they had not bought before."""
    new_count = features("products_new_28d")
    if not (new_count >= 1 and features.has_tenure(2 * 28)):
        return None
    return f"bought {format_count(new_count)} {'product' if new_count == 1 else 'products'} for the first time in the last 28 days"


def repeat_purchases(features: CustomerFeatures) -> str | None:
    """They come back for the same things."""
    share = features("repeat_share")
    return f"{_percent(share)} of the lines they buy are products they bought before" if share >= 0.3 else None


def recent_customer(features: CustomerFeatures) -> str | None:
    """They have not been coming for long."""
    tenure = features("tenure_days")
    return f"first bought {day_count(tenure)} ago" if 1 <= tenure < SEASON_DAYS else None


def long_tenure(features: CustomerFeatures) -> str | None:
    """They have been coming for long."""
    tenure = features("tenure_days")
    return f"first bought {day_count(tenure)} ago" if tenure >= SEASON_DAYS else None


def usual_weekday(features: CustomerFeatures) -> str | None:
    """On which day they come, if they have one."""
    shares = [features(f"weekday_{day}_share") for day in range(len(WEEKDAYS))]
    if not (all(map(math.isfinite, shares)) and max(shares) >= 0.25 and features("purchase_days") >= 4):
        return None
    return f"comes most on {WEEKDAYS[shares.index(max(shares))]}, {_percent(max(shares))} of their days"


def discount_share(features: CustomerFeatures) -> str | None:
    """How much of the price they do not pay."""
    share = features("discount_share")
    return f"{_percent(share)} of the full price is saved by discounts" if share >= 0.05 else None


def return_share(features: CustomerFeatures) -> str | None:
    """How much they bring back; what was bought before the shop's first day makes it more than all, and unsaid."""
    share = features("return_share")
    return f"{_percent(share)} of what they bought was brought back" if 0.005 <= share <= 1 else None


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"


BASKETS = ReasonFamily(
    risk_reasons=(lapsed_category, fewer_repeats, few_categories),
    retention_reasons=(new_products, many_categories, repeat_purchases),
)
TENURE = ReasonFamily(risk_reasons=(recent_customer,), retention_reasons=(long_tenure,))
#: Neither good news nor bad.
USUAL_WEEKDAY = ReasonFamily(risk_reasons=(usual_weekday,), retention_reasons=(usual_weekday,))
DISCOUNTS = ReasonFamily(risk_reasons=(discount_share,), retention_reasons=(discount_share,))
RETURNS = ReasonFamily(risk_reasons=(return_share,), retention_reasons=())
