"""Habits: what a customer's baskets are made of, how long they have been coming, and on which days."""

from __future__ import annotations

import math

from customers.reasons import left_behind
from serving.sentences import Family, Told, days, number

WEEKDAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
#: Few and many categories, for a shop that has hundreds.
FEW, MANY = 5, 15
#: Somebody who has been coming for a season is no newcomer.
SEASON_DAYS = 90


def no_longer(told: Told) -> str | None:
    """A category that they used to buy often, and did not any more when they came."""
    return next((left_behind(*each) for each in told.dropped), None)


def strange(told: Told) -> str | None:
    """They come less for what they used to buy here."""
    lately, usual = told("repeat_share_28d"), told("repeat_share")
    if not lately <= usual - 0.1:
        return None
    return (
        f"{_percent(lately)} of the lines of the last 28 days are of products bought before, usually {_percent(usual)}"
    )


def narrow(told: Told) -> str | None:
    """They come for little; not said of one category, which may be all that a shop without categories has."""
    kinds = told("category_count")
    return f"buys from only {number(kinds)} categories" if 2 <= kinds <= FEW else None


def wide(told: Told) -> str | None:
    """They come for much."""
    kinds = told("category_count")
    return f"buys from {number(kinds)} categories" if kinds >= MANY else None


def trying(told: Told) -> str | None:
    """They bought what they had not bought before."""
    fresh = told("products_new_28d")
    if not (fresh >= 1 and told.knows(2 * 28)):
        return None
    return f"bought {number(fresh)} {'product' if fresh == 1 else 'products'} for the first time in the last 28 days"


def loyal(told: Told) -> str | None:
    """They come back for the same things."""
    share = told("repeat_share")
    return f"{_percent(share)} of the lines they buy are products they bought before" if share >= 0.3 else None


def new(told: Told) -> str | None:
    """They have not been coming for long."""
    tenure = told("tenure_days")
    return f"first bought {days(tenure)} ago" if 1 <= tenure < SEASON_DAYS else None


def long_standing(told: Told) -> str | None:
    """They have been coming for long."""
    tenure = told("tenure_days")
    return f"first bought {days(tenure)} ago" if tenure >= SEASON_DAYS else None


def weekday(told: Told) -> str | None:
    """On which day they come, if they have one."""
    shares = [told(f"weekday_{day}_share") for day in range(len(WEEKDAYS))]
    if not (all(map(math.isfinite, shares)) and max(shares) >= 0.25 and told("purchase_days") >= 4):
        return None
    return f"comes most on {WEEKDAYS[shares.index(max(shares))]}, {_percent(max(shares))} of their days"


def discounts(told: Told) -> str | None:
    """How much of the price they do not pay."""
    share = told("discount_share")
    return f"{_percent(share)} of the full price is saved by discounts" if share >= 0.05 else None


def returns(told: Told) -> str | None:
    """How much they bring back; what was bought before the shop's first day makes it more than all, and unsaid."""
    share = told("return_share")
    return f"{_percent(share)} of what they bought was brought back" if 0.005 <= share <= 1 else None


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"


BASKETS = Family(bad=(no_longer, strange, narrow), good=(trying, wide, loyal))
TENURE = Family(bad=(new,), good=(long_standing,))
#: Neither good news nor bad.
WEEKDAY = Family(bad=(weekday,), good=(weekday,))
DISCOUNTS = Family(bad=(discounts,), good=(discounts,))
RETURNS = Family(bad=(returns,), good=())
