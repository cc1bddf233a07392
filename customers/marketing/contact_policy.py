"""The shop's cap on contacts: who was written to, called or sent post as often as the shop allows."""

from collections.abc import Collection
from datetime import datetime, timedelta

import pandas as pd

from customers.ledger import interactions
from customers.shop.settings import Shop

#: The interactions that are contacts, whether the sender ("sent") or the deliverer ("received") reported them.
CONTACT_KINDS = ("received", "sent")


def load_contacts(shop: Shop, keys: Collection[int], *, as_of: datetime | None = None) -> pd.DataFrame:
    """The contacts with these customers, one row per contact: columns customer_key, happened_at, campaign_id.

    With `as_of`, those that were known before it.
    """
    contacts = interactions.load_by_kind(shop, CONTACT_KINDS, as_of=as_of, keys=keys)
    return contacts[["customer_key", "happened_at", "campaign_id"]]


def customers_at_cap(shop: Shop, contacts: pd.DataFrame, now: datetime) -> set[int]:
    """The keys of customers who had `contact_cap` contacts in the `contact_days` before now.

    `contacts` has the columns of `load_contacts`. A campaign counts once per customer and day of the shop.
    """
    if shop.contact_cap is None:
        return set()
    since = now - timedelta(days=shop.contact_days)
    recent = contacts[(contacts["happened_at"] >= since) & (contacts["happened_at"] < now)]
    by_day = recent.assign(day=recent["happened_at"].dt.tz_convert(shop.timezone).dt.date)
    contact_counts = by_day.drop_duplicates(["customer_key", "day", "campaign_id"])["customer_key"].value_counts()
    return set(contact_counts.index[contact_counts >= shop.contact_cap].tolist())
