"""What eligibility rules must know of customers: channels, consents, contacts, redemptions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from customers import clock
from customers.ledger import interactions
from customers.marketing import contact_policy
from customers.marketing.eligibility import CustomerState
from customers.privacy import consents
from customers.shop.settings import Shop
from serving.scoring.fallback import Floats


def load_customer_state(
    shop: Shop, keys: Sequence[int], baskets: Floats | None = None, *, before: datetime | None = None
) -> CustomerState:
    """What is known of these customers, in their order, and was known before a moment, if one is given.

    `baskets` are what the usual basket of each is worth; needed only where an offer has a least spend.
    """
    allowed_channels = consents.allowed_channels(shop, keys)
    consenting = consents.allowed_customers(shop, keys, "profiling_sensitive")
    row_by_key = pd.Series(range(len(keys)), index=list(keys))
    contacts_made = contact_policy.load_contacts(shop, keys, as_of=before)
    contacts_made = contacts_made.assign(row=contacts_made["customer_key"].map(row_by_key))
    over_limit = contact_policy.customers_at_cap(shop, contacts_made, before or clock.now(shop))
    redeemed = interactions.load_redemptions(shop, before, keys=keys)
    redeemed = redeemed.assign(row=redeemed["customer_key"].map(row_by_key))
    return CustomerState(
        channels=[allowed_channels.get(key, []) for key in keys],
        allows_sensitive=np.array([key in consenting for key in keys], bool),
        basket_value=np.full(len(keys), np.nan) if baskets is None else baskets,
        received_campaigns=contacts_made[["row", "campaign_id"]].dropna(),
        redeemed_offers=redeemed[["row", "offer_key"]],
        segments={},
        is_over_contact_cap=np.array([key in over_limit for key in keys], bool),
    )
