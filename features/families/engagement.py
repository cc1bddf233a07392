"""Engagement features: what a customer was sent, how they responded, and how long ago."""

from pathlib import Path
from typing import TYPE_CHECKING

import ibis
import ibis.expr.types as ir

from customers.marketing import contact_policy
from features.engine import expressions
from features.families.stored_values import PRIOR_REDEEMED_RATE, PRIOR_RESPONSE_RATE

if TYPE_CHECKING:
    from feast import FeatureView

WINDOWS = (28, 90)
#: Kinds of interaction by which the shop contacts a customer, on paper or electronically.
CONTACT_ACTIONS = contact_policy.CONTACT_KINDS
#: Kinds of interaction that customers start themselves.
ACTIONS = ("opened", "clicked", "viewed", "visited", "redeemed")
#: Kinds of interaction that need an answer from the shop.
ANSWERABLE_ACTIONS = ("enquiry", "complaint")
#: Prior for customers with few campaigns: one campaign in ten is responded to, and three offers are redeemed per ten
#: campaigns. The prior weighs as much as five campaigns of their own.
PRIOR_CAMPAIGNS = 5

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
    name="visible_interactions",
)


def columns(history: ir.Table) -> dict[str, ir.Value]:
    """Every engagement feature (float64) by name, over the interactions before the cutoff."""
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
    """Number of interactions of these kinds."""
    return history.kind.isin(actions).sum()


def count_actions_within(history: ir.Table, days: int, *actions: str) -> ir.Value:
    """Number of interactions of these kinds in the last `days` days."""
    return (history.kind.isin(actions) & (history.age_days <= days)).sum()


def days_since_last(history: ir.Table, *actions: str) -> ir.Value:
    """Local days since the last interaction of these kinds; NULL without any."""
    return history.age_days.min(where=history.kind.isin(actions))


def campaigns_received(history: ir.Table) -> ir.Value:
    """Number of distinct campaigns that contacted the customer."""
    return history.campaign_id.nunique(where=history.kind.isin(CONTACT_ACTIONS))


def campaigns_redeemed(history: ir.Table) -> ir.Value:
    """Number of distinct campaigns with a redeemed offer."""
    return history.campaign_id.nunique(where=history.kind == "redeemed")


def response_rate(history: ir.Table) -> ir.Value:
    """Redeemed campaigns per received campaign, shrunk towards PRIOR_RESPONSE_RATE while there are few."""
    received = ibis.greatest(campaigns_received(history), campaigns_redeemed(history))
    return expressions.ratio(
        campaigns_redeemed(history) + PRIOR_RESPONSE_RATE * PRIOR_CAMPAIGNS, received + float(PRIOR_CAMPAIGNS)
    )


def redeemed_rate(history: ir.Table) -> ir.Value:
    """Redeemed offers per received campaign, shrunk towards PRIOR_REDEEMED_RATE while there are few.

    Multiplied by the affinity to an offer's products, it ranks redemptions better than response_rate does (area under
    the ROC curve on Complete Journey's last six campaigns: 0.924 against 0.918).
    """
    received = ibis.greatest(campaigns_received(history), campaigns_redeemed(history))
    return expressions.ratio(
        count_actions(history, "redeemed") + PRIOR_REDEEMED_RATE * PRIOR_CAMPAIGNS, received + float(PRIOR_CAMPAIGNS)
    )


def redeemed_per_campaign(history: ir.Table) -> ir.Value:
    """Redeemed offers per campaign with a redemption; NULL without any."""
    return expressions.ratio(count_actions(history, "redeemed"), campaigns_redeemed(history))


def complaints_total(history: ir.Table) -> ir.Value:
    """Number of complaints."""
    return count_actions(history, "complaint")


def complaints_90d(history: ir.Table) -> ir.Value:
    """Number of complaints in the last 90 days."""
    return count_actions_within(history, 90, "complaint")


def complaint_recency_days(history: ir.Table) -> ir.Value:
    """Days since the last complaint; NULL without any."""
    return days_since_last(history, "complaint")


def enquiries_90d(history: ir.Table) -> ir.Value:
    """Number of enquiries in the last 90 days."""
    return count_actions_within(history, 90, "enquiry")


def enquiry_recency_days(history: ir.Table) -> ir.Value:
    """Days since the last enquiry; NULL without any."""
    return days_since_last(history, "enquiry")


def unanswered_total(history: ir.Table) -> ir.Value:
    """Number of enquiries and complaints without an answer as of the cutoff."""
    return is_unanswered(history, history.as_of).sum()


def unanswered_days(history: ir.Table) -> ir.Value:
    """Days since the oldest enquiry or complaint without an answer as of the cutoff; NULL without any."""
    return history.age_days.max(where=is_unanswered(history, history.as_of))


def is_unanswered(history: ir.Table, as_of: ir.TimestampValue) -> ir.BooleanValue:
    """Whether an enquiry or complaint has no answer as of `as_of`; an answer at that time or later does not count.

    Where the time of the answer is unknown, only the status `open` counts as unanswered.
    """
    unanswered = (history.answered_at >= as_of).fill_null((history.status == "open").fill_null(False))
    return history.kind.isin(ANSWERABLE_ACTIONS).fill_null(False) & unanswered


def viewed_7d(history: ir.Table) -> ir.Value:
    """Number of product views in the last 7 days."""
    return count_actions_within(history, 7, "viewed")


def device_28d(history: ir.Table) -> ir.Value:
    """Number of interactions from a customer's own device in the last 28 days."""
    return (is_from_device(history) & (history.age_days <= 28)).sum()


def device_28d_before(history: ir.Table) -> ir.Value:
    """Number of interactions from a customer's own device 29 to 56 days ago."""
    return (is_from_device(history) & (history.age_days > 28) & (history.age_days <= 56)).sum()


def device_recency_days(history: ir.Table) -> ir.Value:
    """Days since the last interaction from a customer's own device; NULL without any."""
    return history.age_days.min(where=is_from_device(history))


def is_from_device(history: ir.Table) -> ir.BooleanValue:
    """Whether an interaction came from a device in the home of the customer."""
    return (history.channel == "device").fill_null(False)


def unsubscribed_total(history: ir.Table) -> ir.Value:
    """Number of requests not to be contacted."""
    return count_actions(history, "unsubscribed")


def contact_recency_days(history: ir.Table) -> ir.Value:
    """Days since the last interaction of any kind; purchases are not interactions."""
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
    """The column names in order, without computing any feature."""
    return list(columns(VISIBLE_INTERACTIONS))


def view(folder: Path) -> "FeatureView":
    """The Feast view of engagement; its numbers are in folder/engagement/part.parquet."""
    from features.families import feast_views

    return feast_views.numeric_view("engagement", folder, column_names())
