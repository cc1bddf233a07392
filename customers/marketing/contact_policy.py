"""Contacts: when somebody was written to, called or sent post, about which campaign, and who has had enough of it."""

from collections.abc import Collection
from datetime import datetime, timedelta

import pandas as pd

from customers.ledger import interactions
from customers.shop.settings import Shop

#: What counts as a contact, whoever of the two told the shop of it.
CONTACT_KINDS = ("received", "sent")


def load_contacts(shop: Shop, keys: Collection[int], *, as_of: datetime | None = None) -> pd.DataFrame:
    """Every contact with these customers, of those known before a moment: customer_key, happened_at, campaign_id."""
    contacts = interactions.load_by_kind(shop, CONTACT_KINDS, as_of=as_of, keys=keys)
    return contacts[["customer_key", "happened_at", "campaign_id"]]


def customers_at_cap(shop: Shop, contacts: pd.DataFrame, now: datetime) -> set[int]:
    """Who was contacted as often as the shop allows in the days before now: a campaign on a day counts once."""
    if shop.contact_cap is None:
        return set()
    since = now - timedelta(days=shop.contact_days)
    recent = contacts[(contacts["happened_at"] >= since) & (contacts["happened_at"] < now)]
    by_day = recent.assign(day=recent["happened_at"].dt.tz_convert(shop.timezone).dt.date)
    contact_counts = by_day.drop_duplicates(["customer_key", "day", "campaign_id"])["customer_key"].value_counts()
    return set(contact_counts.index[contact_counts >= shop.contact_cap].tolist())
