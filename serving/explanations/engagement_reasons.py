"""Dealings: what passed between the shop and a customer besides purchases, as far as it is a reason for anything."""

from __future__ import annotations

from customers.reports.recommendation_reasons import format_days_ago
from serving.explanations.reason_text import CustomerFeatures, ReasonFamily, day_count, format_count, times_count


def no_offer_used(features: CustomerFeatures) -> str | None:
    """They use no offers."""
    campaign_count = features("campaigns_received")
    return (
        f"used no offer of the {format_count(campaign_count)} campaigns that reached them"
        if _has_redeemed_none(features, campaign_count)
        else None
    )


def _has_redeemed_none(features: CustomerFeatures, campaign_count: float) -> bool:
    return campaign_count >= 2 and features("campaigns_redeemed") == 0


def not_contacted_recently(features: CustomerFeatures) -> str | None:
    """The shop does not write to them."""
    recency = features("received_recency_days")
    return (
        f"the last message reached them {day_count(recency)} ago"
        if recency >= 60 and _has_received_campaign(features)
        else None
    )


def _has_received_campaign(features: CustomerFeatures) -> bool:
    """Whether any campaign reached them: what is sent besides speaks of no campaigns."""
    return features("campaigns_received") >= 1


def offers_used(features: CustomerFeatures) -> str | None:
    """They use offers."""
    recent_count, campaign_count = features("redeemed_90d"), features("campaigns_redeemed")
    if recent_count >= 1:
        return f"used {format_count(recent_count)} {'offer' if recent_count == 1 else 'offers'} in the last 90 days"
    return (
        f"used offers of {format_count(campaign_count)} {'campaign' if campaign_count == 1 else 'campaigns'}"
        if campaign_count >= 1
        else None
    )


def contacted_recently(features: CustomerFeatures) -> str | None:
    """The shop wrote to them."""
    recency = features("received_recency_days")
    return (
        f"a message reached them {format_days_ago(recency)}"
        if recency <= 28 and _has_received_campaign(features)
        else None
    )


def messages_unopened(features: CustomerFeatures) -> str | None:
    """They used to read what the shop writes."""
    recency = features("opened_recency_days")
    return (
        f"has opened no message for {day_count(recency)}" if recency >= 28 and features("received_90d") >= 1 else None
    )


def messages_opened(features: CustomerFeatures) -> str | None:
    """They read what the shop writes."""
    recent_count = features("opened_28d")
    if not recent_count >= 1:
        return None
    return f"opened {format_count(recent_count)} {'message' if recent_count == 1 else 'messages'} in the last 28 days"


def stopped_browsing(features: CustomerFeatures) -> str | None:
    """They used to look around, and do not any more."""
    recency = features("viewed_recency_days")
    return f"has looked at nothing for {day_count(recency)}" if recency >= 28 else None


def browsed_recently(features: CustomerFeatures) -> str | None:
    """They look around."""
    week, month = features("viewed_7d"), features("viewed_28d")
    if week >= 1:
        return f"looked at products {times_count(week)} in the last 7 days"
    return f"looked at products {times_count(month)} in the last 28 days" if month >= 1 else None


def device_use_fell(features: CustomerFeatures) -> str | None:
    """Their device is used less, or not at all."""
    recent_count, previous_count, recency = (
        features("device_28d"),
        features("device_28d_before"),
        features("device_recency_days"),
    )
    if recent_count < previous_count and recent_count >= 1:
        return f"used their device {times_count(recent_count)} in the last 28 days, {times_count(previous_count)} in the 28 before"
    return f"has not used their device for {day_count(recency)}" if recency >= 14 else None


def device_in_use(features: CustomerFeatures) -> str | None:
    """Their device is used."""
    recent_count = features("device_28d")
    return (
        f"used their device {times_count(recent_count)} in the last 28 days"
        if recent_count >= max(1.0, features("device_28d_before"))
        else None
    )


def has_complained(features: CustomerFeatures) -> str | None:
    """They were not content."""
    count, recency = features("complaints_90d"), features("complaint_recency_days")
    if count >= 2:
        return f"complained {times_count(count)} in the last 90 days"
    return f"complained {format_days_ago(recency)}" if recency >= 0 else None


def enquiry_unanswered(features: CustomerFeatures) -> str | None:
    """They asked, and nobody answered."""
    return (
        f"has been waiting for an answer for {day_count(features('unanswered_days'))}"
        if _is_unanswered(features)
        else None
    )


def _is_unanswered(features: CustomerFeatures) -> bool:
    return features("unanswered_total") >= 1 and features("unanswered_days") >= 1


def recent_enquiry(features: CustomerFeatures) -> str | None:
    """They asked something: neither good news nor bad."""
    recency = features("enquiry_recency_days")
    return f"asked something {format_days_ago(recency)}" if recency >= 0 else None


def unsubscribed(features: CustomerFeatures) -> str | None:
    """They do not want to hear from the shop."""
    return "asked not to be written to" if features("unsubscribed_total") >= 1 else None


CAMPAIGNS = ReasonFamily(
    risk_reasons=(no_offer_used, not_contacted_recently), retention_reasons=(offers_used, contacted_recently)
)
MESSAGES = ReasonFamily(risk_reasons=(unsubscribed, messages_unopened), retention_reasons=(messages_opened,))
BROWSING = ReasonFamily(risk_reasons=(stopped_browsing,), retention_reasons=(browsed_recently,))
DEVICE = ReasonFamily(risk_reasons=(device_use_fell,), retention_reasons=(device_in_use,))
COMPLAINTS = ReasonFamily(risk_reasons=(has_complained,), retention_reasons=())
ENQUIRIES = ReasonFamily(risk_reasons=(enquiry_unanswered, recent_enquiry), retention_reasons=(recent_enquiry,))
