"""Dealings: what passed between the shop and a customer besides purchases, as far as it is a reason for anything."""

from __future__ import annotations

from customers.reasons import ago
from serving.sentences import Family, Told, days, number, times


def unused(told: Told) -> str | None:
    """They use no offers."""
    reached = told("campaigns_received")
    return f"used no offer of the {number(reached)} campaigns that reached them" if _none_of(told, reached) else None


def _none_of(told: Told, reached: float) -> bool:
    return reached >= 2 and told("campaigns_redeemed") == 0


def unreached(told: Told) -> str | None:
    """The shop does not write to them."""
    silent = told("received_recency_days")
    return f"the last message reached them {days(silent)} ago" if silent >= 60 and _written_to(told) else None


def _written_to(told: Told) -> bool:
    """Whether any campaign reached them: what is sent besides speaks of no campaigns."""
    return told("campaigns_received") >= 1


def redeemed(told: Told) -> str | None:
    """They use offers."""
    lately, used = told("redeemed_90d"), told("campaigns_redeemed")
    if lately >= 1:
        return f"used {number(lately)} {'offer' if lately == 1 else 'offers'} in the last 90 days"
    return f"used offers of {number(used)} {'campaign' if used == 1 else 'campaigns'}" if used >= 1 else None


def reached(told: Told) -> str | None:
    """The shop wrote to them."""
    silent = told("received_recency_days")
    return f"a message reached them {ago(silent)}" if silent <= 28 and _written_to(told) else None


def unopened(told: Told) -> str | None:
    """They used to read what the shop writes."""
    silent = told("opened_recency_days")
    return f"has opened no message for {days(silent)}" if silent >= 28 and told("received_90d") >= 1 else None


def opened(told: Told) -> str | None:
    """They read what the shop writes."""
    lately = told("opened_28d")
    if not lately >= 1:
        return None
    return f"opened {number(lately)} {'message' if lately == 1 else 'messages'} in the last 28 days"


def not_looking(told: Told) -> str | None:
    """They used to look around, and do not any more."""
    silent = told("viewed_recency_days")
    return f"has looked at nothing for {days(silent)}" if silent >= 28 else None


def looking(told: Told) -> str | None:
    """They look around."""
    week, month = told("viewed_7d"), told("viewed_28d")
    if week >= 1:
        return f"looked at products {times(week)} in the last 7 days"
    return f"looked at products {times(month)} in the last 28 days" if month >= 1 else None


def idle(told: Told) -> str | None:
    """Their device is used less, or not at all."""
    now, before, silent = told("device_28d"), told("device_28d_before"), told("device_recency_days")
    if now < before and now >= 1:
        return f"used their device {times(now)} in the last 28 days, {times(before)} in the 28 before"
    return f"has not used their device for {days(silent)}" if silent >= 14 else None


def in_use(told: Told) -> str | None:
    """Their device is used."""
    now = told("device_28d")
    return f"used their device {times(now)} in the last 28 days" if now >= max(1.0, told("device_28d_before")) else None


def complained(told: Told) -> str | None:
    """They were not content."""
    count, silent = told("complaints_90d"), told("complaint_recency_days")
    if count >= 2:
        return f"complained {times(count)} in the last 90 days"
    return f"complained {ago(silent)}" if silent >= 0 else None


def waiting(told: Told) -> str | None:
    """They asked, and nobody answered."""
    return f"has been waiting for an answer for {days(told('unanswered_days'))}" if _waits(told) else None


def _waits(told: Told) -> bool:
    return told("unanswered_total") >= 1 and told("unanswered_days") >= 1


def asked(told: Told) -> str | None:
    """They asked something: neither good news nor bad."""
    silent = told("enquiry_recency_days")
    return f"asked something {ago(silent)}" if silent >= 0 else None


def left_alone(told: Told) -> str | None:
    """They do not want to hear from the shop."""
    return "asked not to be written to" if told("unsubscribed_total") >= 1 else None


CAMPAIGNS = Family(bad=(unused, unreached), good=(redeemed, reached))
MESSAGES = Family(bad=(left_alone, unopened), good=(opened,))
VIEWS = Family(bad=(not_looking,), good=(looking,))
DEVICE = Family(bad=(idle,), good=(in_use,))
COMPLAINTS = Family(bad=(complained,), good=())
ANSWERS = Family(bad=(waiting, asked), good=(asked,))
