"""Contacts: when somebody was written to, called or sent post, about which campaign, and who has had enough of it."""

from collections.abc import Collection
from datetime import datetime, timedelta

import pandas as pd

from customers import interactions
from customers.shop import Shop

#: What counts as a contact, whoever of the two told the shop of it.
REACHED = ("received", "sent")


def of(shop: Shop, keys: Collection[int], *, before: datetime | None = None) -> pd.DataFrame:
    """Every contact with these customers, of those known before a moment: customer_key, happened_at, campaign_id."""
    met = interactions.happened(shop, REACHED, as_of=before, keys=keys)
    return met[["customer_key", "happened_at", "campaign_id"]]


def enough(shop: Shop, met: pd.DataFrame, now: datetime) -> set[int]:
    """Who was contacted as often as the shop allows in the days before now: a campaign on a day counts once."""
    if shop.contact_cap is None:
        return set()
    since = now - timedelta(days=shop.contact_days)
    lately = met[(met["happened_at"] >= since) & (met["happened_at"] < now)]
    days = lately.assign(day=lately["happened_at"].dt.tz_convert(shop.timezone).dt.date)
    times = days.drop_duplicates(["customer_key", "day", "campaign_id"])["customer_key"].value_counts()
    return set(times.index[times >= shop.contact_cap].tolist())
