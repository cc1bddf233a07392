"""Engagement: what a customer was sent, what they did about it, and how long that is ago."""

from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from customers.marketing import contact_policy
from features.engine import expressions

if TYPE_CHECKING:
    from feast import FeatureView

WINDOWS = (28, 90)
#: What the shop does to reach somebody, by letter or by wire.
CONTACT_ACTIONS = contact_policy.CONTACT_KINDS
#: What a customer does of their own accord.
ACTIONS = ("opened", "clicked", "viewed", "visited", "redeemed")
#: What a customer waits for an answer to.
ANSWERABLE_ACTIONS = ("enquiry", "complaint")
#: A customer of whom little is known does about as others do: answers one campaign in ten, and uses three offers of
#: ten campaigns. That is worth five campaigns of their own.
PRIOR_RESPONSE_RATE, PRIOR_REDEEMED_RATE, PRIOR_CAMPAIGNS = 0.1, 0.3, 5

VISIBLE_INTERACTIONS = ibis.table(
    {
        "customer_key": "int64",
        "as_of": "timestamp('UTC')",
        "age_days": "int64",
        "channel": "string",
        "kind": "string",
        "status": "string",
        "campaign_id": "string",
        "answered_at": "timestamp('UTC')",
    },
    name="interactions_seen",
)


def columns(history: ir.Table) -> dict[str, ir.Value]:
    """How a customer answers the shop, over the interactions seen from a moment."""
    received = {
        "received_total": count_actions(history, *CONTACT_ACTIONS),
        "received_recency_days": days_since_last(history, *CONTACT_ACTIONS),
    }
    received |= {f"received_{w}d": count_actions_within(history, w, *CONTACT_ACTIONS) for w in WINDOWS}
    action_columns: dict[str, ir.Value] = {}
    for action in ACTIONS:
        action_columns |= {
            f"{action}_total": count_actions(history, action),
            f"{action}_recency_days": days_since_last(history, action),
        }
        action_columns |= {f"{action}_{w}d": count_actions_within(history, w, action) for w in WINDOWS}
    named = received | action_columns | {feature.__name__: feature(history) for feature in FEATURES}
    return {name: column.cast("float64") for name, column in named.items()}


def count_actions(history: ir.Table, *actions: str) -> ir.Value:
    """How often it happened at all."""
    return history.kind.isin(actions).sum()


def count_actions_within(history: ir.Table, days: int, *actions: str) -> ir.Value:
    """How often it happened within the last days."""
    return (history.kind.isin(actions) & (history.age_days <= days)).sum()


def days_since_last(history: ir.Table, *actions: str) -> ir.Value:
    """Days since it last happened, by the shop's calendar; NULL if it never did."""
    return history.age_days.min(where=history.kind.isin(actions))


def campaigns_received(history: ir.Table) -> ir.Value:
    """Different campaigns that reached them."""
    return history.campaign_id.nunique(where=history.kind.isin(CONTACT_ACTIONS))


def campaigns_redeemed(history: ir.Table) -> ir.Value:
    """Different campaigns of which they used an offer."""
    return history.campaign_id.nunique(where=history.kind == "redeemed")


def response_rate(history: ir.Table) -> ir.Value:
    """Campaigns of which they used an offer, of those that reached them; drawn to the usual while there are few."""
    received = ibis.greatest(campaigns_received(history), campaigns_redeemed(history))
    return expressions.ratio(
        campaigns_redeemed(history) + PRIOR_RESPONSE_RATE * PRIOR_CAMPAIGNS, received + float(PRIOR_CAMPAIGNS)
    )


def redeemed_rate(history: ir.Table) -> ir.Value:
    """Offers they use for each campaign that reaches them, drawn to the usual likewise.

    Times their affinity to an offer's products, it ranks who will redeem what better than response_rate does
    (area under the curve on Complete Journey's last six campaigns: 0.924 against 0.918).
    """
    received = ibis.greatest(campaigns_received(history), campaigns_redeemed(history))
    return expressions.ratio(
        count_actions(history, "redeemed") + PRIOR_REDEEMED_RATE * PRIOR_CAMPAIGNS, received + float(PRIOR_CAMPAIGNS)
    )


def redeemed_per_campaign(history: ir.Table) -> ir.Value:
    """Offers they use of a campaign of which they use any; NULL if they never did."""
    return expressions.ratio(count_actions(history, "redeemed"), campaigns_redeemed(history))


def complaints_total(history: ir.Table) -> ir.Value:
    """How often they complained."""
    return count_actions(history, "complaint")


def complaints_90d(history: ir.Table) -> ir.Value:
    """How often they complained within the last 90 days."""
    return count_actions_within(history, 90, "complaint")


def complaint_recency_days(history: ir.Table) -> ir.Value:
    """Days since they last complained; NULL if they never did."""
    return days_since_last(history, "complaint")


def enquiries_90d(history: ir.Table) -> ir.Value:
    """How often they asked something within the last 90 days."""
    return count_actions_within(history, 90, "enquiry")


def enquiry_recency_days(history: ir.Table) -> ir.Value:
    """Days since they last asked something; NULL if they never did."""
    return days_since_last(history, "enquiry")


def unanswered_total(history: ir.Table) -> ir.Value:
    """Enquiries and complaints that had no answer yet at the moment."""
    return is_unanswered(history, history.as_of).sum()


def unanswered_days(history: ir.Table) -> ir.Value:
    """For how long they have been waiting for the oldest of these answers; NULL if they wait for none."""
    return history.age_days.max(where=is_unanswered(history, history.as_of))


def is_unanswered(history: ir.Table, as_of: ir.TimestampValue) -> ir.BooleanValue:
    """Whether an interaction waits for an answer at a moment; an answer that came later had not come yet.

    Where nobody knows when it was answered, or says whether it was, it waits at no moment.
    """
    unanswered = (history.answered_at >= as_of).fill_null((history.status == "open").fill_null(False))
    return history.kind.isin(ANSWERABLE_ACTIONS).fill_null(False) & unanswered


def viewed_7d(history: ir.Table) -> ir.Value:
    """How often they looked at something within the last week."""
    return count_actions_within(history, 7, "viewed")


def device_28d(history: ir.Table) -> ir.Value:
    """How often they used a device of theirs within the last 28 days."""
    return (is_from_device(history) & (history.age_days <= 28)).sum()


def device_28d_before(history: ir.Table) -> ir.Value:
    """The same, of the 28 days before."""
    return (is_from_device(history) & (history.age_days > 28) & (history.age_days <= 56)).sum()


def device_recency_days(history: ir.Table) -> ir.Value:
    """Days since a device of theirs was last used; NULL if none ever was."""
    return history.age_days.min(where=is_from_device(history))


def is_from_device(history: ir.Table) -> ir.BooleanValue:
    """What reached the shop from a device that they have at home."""
    return (history.channel == "device").fill_null(False)


def unsubscribed_total(history: ir.Table) -> ir.Value:
    """How often they asked to be left alone."""
    return count_actions(history, "unsubscribed")


def contact_recency_days(history: ir.Table) -> ir.Value:
    """Days since the shop and they last had to do with each other, purchases aside."""
    return history.age_days.min()


FEATURES = (
    campaigns_received,
    campaigns_redeemed,
    response_rate,
    redeemed_rate,
    redeemed_per_campaign,
    complaints_total,
    complaints_90d,
    complaint_recency_days,
    enquiries_90d,
    enquiry_recency_days,
    unanswered_total,
    unanswered_days,
    viewed_7d,
    device_28d,
    device_28d_before,
    device_recency_days,
    unsubscribed_total,
    contact_recency_days,
)


def column_names() -> list[str]:
    """The columns in their order, without computing any."""
    return list(columns(VISIBLE_INTERACTIONS))


def view(folder: Path) -> "FeatureView":
    """What Feast is told about this family; the numbers lie in folder/engagement/part.parquet."""
    from features.families import feast_views

    return feast_views.numeric_view("engagement", folder, column_names())
