"""Visit reasons: recency, frequency and spend of a customer, compared with what is usual for that customer."""

from __future__ import annotations

import math

from customers.reports.recommendation_reasons import format_days_ago
from serving.explanations.reason_text import CustomerFeatures, ReasonFamily, day_count, every_days, format_count

# Recency: time since the last purchase, against the usual gap --------------------------------------------------


def overdue(features: CustomerFeatures) -> str | None:
    """The time since the last purchase exceeds the usual gap."""
    gap, recency = features("gap_median_days"), features("recency_days")
    if not recency > gap >= 1:
        return None
    longest_text = ", longer than ever before" * is_longest_gap(features)
    return f"comes about {every_days(gap)}, silent for {format_count(recency)}{longest_text}"


def is_longest_gap(features: CustomerFeatures) -> bool:
    """Whether the time since the last purchase exceeds every gap before it."""
    return features("recency_days") > features("gap_max_days")


def single_purchase(features: CustomerFeatures) -> str | None:
    """The customer bought only once, so there is no gap to compare with."""
    recency = features("recency_days")
    return (
        None
        if features("gap_median_days") >= 1 or not recency >= 0
        else f"bought only once, {format_days_ago(recency)}"
    )


def first_purchase(features: CustomerFeatures) -> str | None:
    """A new customer, whose only purchase is at most half a horizon ago."""
    recency = features("recency_days")
    is_new = not features("gap_median_days") >= 1 and 0 <= recency <= features.horizon_days / 2
    return f"bought for the first time {format_days_ago(recency)}" if is_new else None


def on_schedule(features: CustomerFeatures) -> str | None:
    """The time since the last purchase is within the usual gap."""
    gap, recency = features("gap_median_days"), features("recency_days")
    return (
        f"comes about {every_days(gap)}, last bought {format_days_ago(recency)}"
        if gap >= 1 and recency <= gap
        else None
    )


def returned_before(features: CustomerFeatures) -> str | None:
    """The customer has returned from an equal or longer gap before."""
    longest_gap = features("gap_max_days")
    return (
        f"has stayed away for {day_count(longest_gap)} before and come back"
        if longest_gap >= features("recency_days")
        else None
    )


# Frequency since the first purchase ----------------------------------------------------------------------------


def infrequent(features: CustomerFeatures) -> str | None:
    """Fewer than three purchase days per horizon: one without a purchase is not unusual."""
    purchase_days, tenure = features("purchase_days"), features("tenure_days")
    if not 2 <= purchase_days < 3 * tenure / features.horizon_days:
        return None
    return f"bought on only {format_count(purchase_days)} of the {day_count(tenure)} since they first came"


def frequent(features: CustomerFeatures) -> str | None:
    """At least two purchase days per horizon: one without a purchase would be unusual."""
    purchase_days, tenure = features("purchase_days"), features("tenure_days")
    if not (purchase_days >= 3 and tenure >= 1 and purchase_days >= 2 * tenure / features.horizon_days):
        return None
    return f"bought on {format_count(purchase_days)} of the {day_count(tenure)} since they first came"


# Recent change against the time before -------------------------------------------------------------------------


def fewer_purchase_days(features: CustomerFeatures) -> str | None:
    """Fewer purchase days than in the window before."""
    current, previous = _compare_windows(features, "purchase_days")
    return _purchase_days_text(features, current, previous) if current < previous else None


def more_purchase_days(features: CustomerFeatures) -> str | None:
    """More purchase days than in the window before."""
    current, previous = _compare_windows(features, "purchase_days")
    return _purchase_days_text(features, current, previous) if current > previous else None


def steady(features: CustomerFeatures) -> str | None:
    """As many purchase days as in the window before, or a customer too new to compare."""
    current, previous = (
        features(f"purchase_days_{features.window_days}d"),
        features(f"purchase_days_{features.window_days}d_before"),
    )
    is_unchanged = current == previous if features.has_tenure(2 * features.window_days) else True
    return (
        f"bought on {day_count(current)} of the last {features.window_days}" if current >= 2 and is_unchanged else None
    )


def longer_gaps(features: CustomerFeatures) -> str | None:
    """Recent gaps are at least 10 % longer than the mean gap."""
    recent_gap, usual = features("gap_recent_days"), features("gap_mean_days")
    return _pace_text(recent_gap, usual) if recent_gap >= 1.1 * usual >= 1.1 else None


def shorter_gaps(features: CustomerFeatures) -> str | None:
    """Recent gaps are at least 10 % shorter than the mean gap."""
    recent_gap, usual = features("gap_recent_days"), features("gap_mean_days")
    return _pace_text(recent_gap, usual) if 1 <= recent_gap <= 0.9 * usual else None


def last_gap_long(features: CustomerFeatures) -> str | None:
    """The last gap is at least 1.5 times the median gap."""
    last, usual = features("gap_last_days"), features("gap_median_days")
    return _last_gap_text(last, usual) if last >= 1.5 * usual >= 1.5 else None


def last_gap_short(features: CustomerFeatures) -> str | None:
    """The median gap is at least 1.5 times the last gap."""
    last, usual = features("gap_last_days"), features("gap_median_days")
    return _last_gap_text(last, usual) if usual >= 1.5 * last >= 1.5 else None


def _purchase_days_text(features: CustomerFeatures, current: float, previous: float) -> str:
    window, current_text, previous_text = (
        features.window_days,
        day_count(current) if current else "none",
        format_count(previous) if previous else "none",
    )
    return f"bought on {current_text} of the last {window}, on {previous_text} of the {window} before"


def _pace_text(recent_gap: float, usual_gap: float) -> str | None:
    """The recent and the usual frequency; None where they read the same."""
    recent_text, usual_text = every_days(recent_gap), every_days(usual_gap)
    return None if recent_text == usual_text else f"lately came {recent_text}, over all the time {usual_text}"


def _last_gap_text(last: float, usual: float) -> str:
    return f"the last two visits were {day_count(last)} apart, usually {format_count(usual)}"


# Spend ---------------------------------------------------------------------------------------------------------


def lower_spend(features: CustomerFeatures) -> str | None:
    """Spend is at least 5 % below the window before, but not 0: no spend at all is covered by the visit reasons."""
    current, previous = _compare_windows(features, "spend")
    return _spend_text(features, "less", 1 - current / previous) if 0 < current <= 0.95 * previous else None


def higher_spend(features: CustomerFeatures) -> str | None:
    """Spend is at least 5 % above the window before."""
    current, previous = _compare_windows(features, "spend")
    return _spend_text(features, "more", current / previous - 1) if current >= 1.05 * previous > 0 else None


def small_basket(features: CustomerFeatures) -> str | None:
    """The last basket is at least 20 % below the mean basket."""
    return _basket_text(features) if features("basket_value_last") <= 0.8 * features("basket_value_mean") else None


def large_basket(features: CustomerFeatures) -> str | None:
    """The last basket is at least 20 % above the mean basket."""
    return _basket_text(features) if features("basket_value_last") >= 1.2 * features("basket_value_mean") else None


def _compare_windows(features: CustomerFeatures, feature: str) -> tuple[float, float]:
    """A feature over the last window and the one before it; NaN for a customer who is too new for both."""
    current, previous = (
        features(f"{feature}_{features.window_days}d"),
        features(f"{feature}_{features.window_days}d_before"),
    )
    return (current, previous) if features.has_tenure(2 * features.window_days) else (math.nan, math.nan)


def _spend_text(features: CustomerFeatures, direction: str, share: float) -> str:
    window = features.window_days
    return f"spent {round(100 * share)} % {direction} in the last {window} days than in the {window} before"


def _basket_text(features: CustomerFeatures) -> str | None:
    last, usual = features("basket_value_last"), features("basket_value_mean")
    return f"the last basket was worth {round(100 * last / usual)} % of the usual one" if usual > 0 <= last else None


RECENCY = ReasonFamily(
    risk_reasons=(overdue, single_purchase), retention_reasons=(on_schedule, first_purchase, returned_before)
)
FREQUENCY = ReasonFamily(risk_reasons=(infrequent, single_purchase), retention_reasons=(frequent,))
RECENT_CHANGE = ReasonFamily(
    risk_reasons=(fewer_purchase_days, longer_gaps, last_gap_long),
    retention_reasons=(more_purchase_days, shorter_gaps, last_gap_short, steady),
)
SPEND = ReasonFamily(risk_reasons=(lower_spend, small_basket), retention_reasons=(higher_spend, large_basket))
