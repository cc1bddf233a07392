"""Engagement reasons: offers, messages, browsing, device use, complaints and enquiries of a customer."""

from __future__ import annotations

from customers.reports.recommendation_reasons import format_days_ago
from serving.explanations.reason_text import CustomerFeatures, ReasonFamily, day_count, format_count, times_count


def no_offer_used(features: CustomerFeatures) -> str | None:
    """No offer redeemed, of at least two campaigns received."""
    campaign_count = features("campaigns_received")
    return (
        f"used no offer of the {format_count(campaign_count)} campaigns that reached them"
        if _has_redeemed_none(features, campaign_count)
        else None
    )


def _has_redeemed_none(features: CustomerFeatures, campaign_count: float) -> bool:
    return campaign_count >= 2 and features("campaigns_redeemed") == 0


def not_contacted_recently(features: CustomerFeatures) -> str | None:
    """No message received for at least 60 days."""
    recency = features("received_recency_days")
    return (
        f"the last message reached them {day_count(recency)} ago"
        if recency >= 60 and _has_received_campaign(features)
        else None
    )


def _has_received_campaign(features: CustomerFeatures) -> bool:
    """Whether any campaign reached the customer: other messages are no reason of the campaign family."""
    return features("campaigns_received") >= 1


def offers_used(features: CustomerFeatures) -> str | None:
    """Offers redeemed, in the last 90 days or before."""
    recent_count, campaign_count = features("redeemed_90d"), features("campaigns_redeemed")
    if recent_count >= 1:
        return f"used {format_count(recent_count)} {'offer' if recent_count == 1 else 'offers'} in the last 90 days"
    return (
        f"used offers of {format_count(campaign_count)} {'campaign' if campaign_count == 1 else 'campaigns'}"
        if campaign_count >= 1
        else None
    )


def contacted_recently(features: CustomerFeatures) -> str | None:
    """A message received within the last 28 days."""
    recency = features("received_recency_days")
    return (
        f"a message reached them {format_days_ago(recency)}"
        if recency <= 28 and _has_received_campaign(features)
        else None
    )


def messages_unopened(features: CustomerFeatures) -> str | None:
    """No message opened for at least 28 days, although some were received."""
    recency = features("opened_recency_days")
    return (
        f"has opened no message for {day_count(recency)}" if recency >= 28 and features("received_90d") >= 1 else None
    )


def messages_opened(features: CustomerFeatures) -> str | None:
    """Messages opened in the last 28 days."""
    recent_count = features("opened_28d")
    if not recent_count >= 1:
        return None
    return f"opened {format_count(recent_count)} {'message' if recent_count == 1 else 'messages'} in the last 28 days"


def stopped_browsing(features: CustomerFeatures) -> str | None:
    """No product viewed for at least 28 days."""
    recency = features("viewed_recency_days")
    return f"has looked at nothing for {day_count(recency)}" if recency >= 28 else None


def browsed_recently(features: CustomerFeatures) -> str | None:
    """Products viewed in the last 7 days, else in the last 28."""
    week, month = features("viewed_7d"), features("viewed_28d")
    if week >= 1:
        return f"looked at products {times_count(week)} in the last 7 days"
    return f"looked at products {times_count(month)} in the last 28 days" if month >= 1 else None


def device_use_fell(features: CustomerFeatures) -> str | None:
    """Device use fell against the 28 days before, or stopped at least 14 days ago."""
    recent_count, previous_count, recency = (
        features("device_28d"),
        features("device_28d_before"),
        features("device_recency_days"),
    )
    if recent_count < previous_count and recent_count >= 1:
        recent_text, previous_text = times_count(recent_count), times_count(previous_count)
        return f"used their device {recent_text} in the last 28 days, {previous_text} in the 28 before"
    return f"has not used their device for {day_count(recency)}" if recency >= 14 else None


def device_in_use(features: CustomerFeatures) -> str | None:
    """Device use in the last 28 days, no less than in the 28 before."""
    recent_count = features("device_28d")
    return (
        f"used their device {times_count(recent_count)} in the last 28 days"
        if recent_count >= max(1.0, features("device_28d_before"))
        else None
    )


def has_complained(features: CustomerFeatures) -> str | None:
    """Complaints: how many in the last 90 days, else how long ago the last."""
    count, recency = features("complaints_90d"), features("complaint_recency_days")
    if count >= 2:
        return f"complained {times_count(count)} in the last 90 days"
    return f"complained {format_days_ago(recency)}" if recency >= 0 else None


def enquiry_unanswered(features: CustomerFeatures) -> str | None:
    """An enquiry that the shop has not answered for at least a day."""
    return (
        f"has been waiting for an answer for {day_count(features('unanswered_days'))}"
        if _is_unanswered(features)
        else None
    )


def _is_unanswered(features: CustomerFeatures) -> bool:
    return features("unanswered_total") >= 1 and features("unanswered_days") >= 1


def recent_enquiry(features: CustomerFeatures) -> str | None:
    """An enquiry; a reason for either direction."""
    recency = features("enquiry_recency_days")
    return f"asked something {format_days_ago(recency)}" if recency >= 0 else None


def unsubscribed(features: CustomerFeatures) -> str | None:
    """The customer unsubscribed from messages."""
    return "asked not to be written to" if features("unsubscribed_total") >= 1 else None


CAMPAIGNS = ReasonFamily(
    risk_reasons=(no_offer_used, not_contacted_recently), retention_reasons=(offers_used, contacted_recently)
)
MESSAGES = ReasonFamily(risk_reasons=(unsubscribed, messages_unopened), retention_reasons=(messages_opened,))
BROWSING = ReasonFamily(risk_reasons=(stopped_browsing,), retention_reasons=(browsed_recently,))
DEVICE = ReasonFamily(risk_reasons=(device_use_fell,), retention_reasons=(device_in_use,))
COMPLAINTS = ReasonFamily(risk_reasons=(has_complained,), retention_reasons=())
ENQUIRIES = ReasonFamily(risk_reasons=(enquiry_unanswered, recent_enquiry), retention_reasons=(recent_enquiry,))
