"""Validity: of the offers that were found for customers, those that may still be made to them.

A model spoke in the night; since then an offer may have ended, been redeemed, sold out or paid out, and a customer
may have said no or been contacted often enough. Whoever shows what a model found asks here first.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
import pandas as pd

from customers import clock
from customers.catalogue import products
from customers.database import change_counters
from customers.ledger import interactions
from customers.marketing import contact_policy, eligibility, offers
from customers.privacy import consents
from customers.scores import score_store
from customers.shop.settings import Shop

# A night is good for a day and may come late; what was said longer ago is a day gone by.
MAX_AGE = timedelta(days=2)


def is_still_eligible(shop: Shop, pairs: pd.DataFrame, *, as_of: datetime | None = None) -> pd.Series:
    """Of each row (customer_key, offer_key), as what was said as of a moment: whether the offer may be made now.

    Of a day gone by it is judged as that day could: by what was known before, and not by today's stock. What a
    customer has not allowed is never named, whatever the day.
    """
    now, data_before = evaluation_times(shop, as_of)
    offer_catalogue = offers.load_catalogue(shop, running_at=now).offers.set_index("offer_key")
    if data_before is None:
        offer_catalogue = offer_catalogue.drop(
            index=offer_catalogue.index.intersection(
                list(_sold_out_offers(shop, change_counters.catalogue_version(shop)))
            )
        )
    redeemed = _load_redemptions(shop, pairs, offer_catalogue, data_before)
    offer_catalogue = offer_catalogue[
        ~eligibility.is_budget_spent(offer_catalogue.reset_index(), redeemed["offer_key"].value_counts())
    ]
    pair_index = pd.MultiIndex.from_frame(pairs[["customer_key", "offer_key"]])
    is_open = pairs["offer_key"].isin(offer_catalogue.index) & ~pair_index.isin(
        pd.MultiIndex.from_frame(redeemed[list(pair_index.names)])
    )
    open_pairs = pairs[is_open]
    is_eligible = _is_allowed_sensitive(shop, open_pairs, offer_catalogue) & _has_allowed_channel(
        shop, open_pairs, offer_catalogue
    )
    is_eligible &= ~_exceeds_contact_cap(shop, open_pairs, offer_catalogue, now, data_before=data_before)
    return is_eligible.reindex(pairs.index, fill_value=False).astype(bool)


def evaluation_times(shop: Shop, as_of: datetime | None) -> tuple[datetime, datetime | None]:
    """When what was said as of a moment is judged, and before when it had to be known; None for all that is known."""
    now = clock.now(shop)
    if as_of is not None and _is_superseded(shop, as_of):
        return as_of, as_of
    return (now if as_of is None else max(now, as_of)), None


def _is_superseded(shop: Shop, as_of: datetime) -> bool:
    """Whether another night has looked since, or should have."""
    run = score_store.newest_run(shop, "offers")
    return (run is not None and run.as_of > as_of) or as_of < clock.now(shop) - MAX_AGE


def _load_redemptions(
    shop: Shop, pairs: pd.DataFrame, offer_catalogue: pd.DataFrame, data_before: datetime | None
) -> pd.DataFrame:
    """Who redeemed what: everybody, where a budget is to be spent, and else those who are asked about."""
    keys = None if offer_catalogue["budget"].notna().any() else pairs["customer_key"].unique().tolist()
    return interactions.load_redemptions(shop, data_before, keys=keys)


@lru_cache(maxsize=4)
def _sold_out_offers(shop: Shop, _version: tuple[int, int]) -> frozenset[int]:
    """The offers of which every product is counted and gone, looked up once an edition of the book."""
    covered_products = offers.load_catalogue(shop).covered_products
    is_sold_out = (
        covered_products["product_key"]
        .isin(list(products.load_sold_out(shop)))
        .groupby(covered_products["offer_key"])
        .all()
    )
    return frozenset(is_sold_out.index[is_sold_out.to_numpy(bool)])


def _is_allowed_sensitive(shop: Shop, pairs: pd.DataFrame, offer_catalogue: pd.DataFrame) -> pd.Series:
    is_sensitive = pairs["offer_key"].isin(offer_catalogue.index[offer_catalogue["sensitive"]])
    customer_keys = pairs.loc[is_sensitive, "customer_key"].unique()
    allowed_keys = (
        consents.allowed_customers(shop, customer_keys, "profiling_sensitive") if len(customer_keys) else set()
    )
    return ~is_sensitive | pairs["customer_key"].isin(allowed_keys)


def _has_allowed_channel(shop: Shop, pairs: pd.DataFrame, offer_catalogue: pd.DataFrame) -> pd.Series:
    """Where some channel of the offer is one on which the customer may be met; one without channels is everywhere."""
    allowed = consents.allowed_channels(shop, pairs["customer_key"].unique())
    customer_bits = pairs["customer_key"].map(
        {key: _channel_bits([*channels, *consents.CONSENT_FREE_CHANNELS]) for key, channels in allowed.items()}
    )
    offer_bits = pairs["offer_key"].map(
        {key: _channel_bits(channels) for key, channels in offer_catalogue["channels"].items()}
    )
    shared_bits = customer_bits.to_numpy(np.int64) & offer_bits.to_numpy(np.int64)
    return pd.Series((shared_bits != 0) | (offer_bits.to_numpy(np.int64) == 0), pairs.index, dtype=bool)


def _exceeds_contact_cap(
    shop: Shop, pairs: pd.DataFrame, offer_catalogue: pd.DataFrame, now: datetime, *, data_before: datetime | None
) -> pd.Series:
    """Where the offer asks for one more contact than the shop allows.

    What is made in the shop or on its site asks for none, nor does a campaign that has reached the customer already.
    """
    free_bits = _channel_bits(consents.CONSENT_FREE_CHANNELS)
    contact_offers = [
        key
        for key, channels in offer_catalogue["channels"].items()
        if len(channels) and not _channel_bits(channels) & free_bits
    ]
    needs_contact = pairs["offer_key"].isin(contact_offers)
    if shop.contact_cap is None or not needs_contact.any():
        return pd.Series(False, pairs.index)
    past_contacts = contact_policy.load_contacts(
        shop, pairs.loc[needs_contact, "customer_key"].unique().tolist(), as_of=data_before
    )
    is_at_cap = pairs["customer_key"].isin(list(contact_policy.customers_at_cap(shop, past_contacts, now)))
    pair_campaigns = pd.MultiIndex.from_arrays(
        [pairs["customer_key"], pairs["offer_key"].map(offer_catalogue["campaign_id"])]
    )
    is_contacted = pair_campaigns.isin(
        pd.MultiIndex.from_frame(past_contacts[["customer_key", "campaign_id"]].dropna())
    )
    return needs_contact & is_at_cap & ~is_contacted


def _channel_bits(channels: Iterable[str]) -> int:
    """Some channels as one number, a bit each: quick to compare for many customers and offers."""
    return sum(1 << interactions.CHANNELS.index(channel) for channel in set(channels))
