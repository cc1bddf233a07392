"""Loads what the eligibility rules read: offers with products and stock, and the state of customers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
import sqlalchemy as sa

from customers import clock
from customers.catalogue import products
from customers.database import change_counters, engine
from customers.database.version_cache import VersionCache
from customers.ledger import interactions, transactions
from customers.marketing import contact_policy, offers
from customers.marketing.eligibility import CustomerState, Floats
from customers.marketing.offer_table import OfferTable, build_offer_table, with_spent_budgets
from customers.marketing.offers import OfferCatalogue
from customers.privacy import consents
from customers.shop.settings import Shop


@dataclass(frozen=True, slots=True)
class CurrentOffers:
    """Every offer of the shop with the products that are sold, of one state of the database.

    `unsold_products` are known from an offer alone and have never been sold: no offer covers them. With them
    the `version` of the catalogue (see `change_counters`) identifies the state. The offers have a column `called`,
    the id by which each is known outside.
    """

    version: tuple[int, int]
    unsold_products: frozenset[int]
    catalogue: OfferCatalogue
    offer_table: OfferTable
    sold_out_products: frozenset[int]


def load_current_offers(shop: Shop) -> CurrentOffers:
    """The offers as they are now, read again only where the catalogue or the unsold products have changed."""
    with engine.read_transaction(shop) as connection:
        return read_current_offers(connection, shop)


def read_current_offers(connection: sa.Connection, shop: Shop) -> CurrentOffers:
    """As `load_current_offers`, in a transaction of the caller."""
    version = change_counters.read_catalogue_version(connection)
    unsold = _read_unsold_products(connection, shop, version)
    return _CURRENT_OFFERS.get((shop, version, unsold), lambda: _read_state(connection, shop, version, unsold))


def with_budgets_as_of(shop: Shop, table: OfferTable, before: datetime | None = None) -> OfferTable:
    """The table with the budgets that are spent now, or were by redemptions known before a time.

    Redemptions are read only where an offer has a budget.
    """
    if not table.offers["budget"].notna().any():
        return table
    redemptions = interactions.load_redemptions(shop, before)
    return with_spent_budgets(table, redemptions["offer_key"].value_counts())


def load_customer_state(
    shop: Shop,
    keys: Sequence[int],
    basket_values: Floats | None = None,
    *,
    before: datetime | None = None,
    now: datetime | None = None,
) -> CustomerState:
    """The state of these customers, one row per key in their order.

    With `before`, contacts and redemptions are those known before it; consents are always those of today. Contacts
    are counted up to `now`: by default `before`, else the shop's now. `basket_values`, shape (n_keys,), matter only
    where an offer has a minimum spend. The shop has no segments yet.
    """
    allowed_channels = consents.allowed_channels(shop, keys)
    consenting = consents.allowed_customers(shop, keys, "profiling_sensitive")
    row_by_key = pd.Series(range(len(keys)), index=list(keys))
    contacts = contact_policy.load_contacts(shop, keys, as_of=before)
    contacts = contacts.assign(row=contacts["customer_key"].map(row_by_key))
    at_cap = contact_policy.customers_at_cap(shop, contacts, now or before or clock.now(shop))
    redeemed = interactions.load_redemptions(shop, before, keys=keys)
    redeemed = redeemed.assign(row=redeemed["customer_key"].map(row_by_key))
    return CustomerState(
        channels=[allowed_channels.get(key, []) for key in keys],
        allows_sensitive=np.array([key in consenting for key in keys], bool),
        basket_value=np.full(len(keys), np.nan) if basket_values is None else basket_values,
        received_campaigns=contacts[["row", "campaign_id"]].dropna(),
        redeemed_offers=redeemed[["row", "offer_key"]],
        segments={},
        is_over_contact_cap=np.array([key in at_cap for key in keys], bool),
    )


# Reading the offers -------------------------------------------------------------------------------------------------

#: Products, and the months (with their counters) that were looked at when they were unsold.
_UnsoldProducts = tuple[frozenset[int], frozenset[tuple[str, int]]]

_CURRENT_OFFERS: VersionCache[CurrentOffers] = VersionCache()
_UNSOLD_AT_FIRST: VersionCache[_UnsoldProducts] = VersionCache()
_SOLD_IN_MONTH: VersionCache[frozenset[int]] = VersionCache(max_size=64)


def _read_state(
    connection: sa.Connection, shop: Shop, version: tuple[int, int], unsold: frozenset[int]
) -> CurrentOffers:
    catalogue = offers.read_catalogue(connection, shop)
    covers = catalogue.covered_products
    covers = covers[~covers["product_key"].isin(unsold)].reset_index(drop=True)
    offer_keys = catalogue.offers["offer_key"]
    offer_rows = catalogue.offers.assign(public_id=offer_keys.map(offers.read_ids(connection, offer_keys)))
    sold_out = frozenset(products.read_sold_out(connection))
    table = build_offer_table(offer_rows, covers, sold_out=sold_out)
    return CurrentOffers(version, unsold, OfferCatalogue(offer_rows, covers), table, sold_out)


def _read_unsold_products(connection: sa.Connection, shop: Shop, version: tuple[int, int]) -> frozenset[int]:
    """Products on offer that were never sold; of later sales only the months in which they fell are read."""
    unsold, months_before = _UNSOLD_AT_FIRST.get((shop, version), lambda: _read_unsold_at_first(connection, shop))
    if not unsold:
        return unsold
    changed = [month for month in change_counters.read_month_counters(connection).items() if month not in months_before]
    return unsold.difference(*(_read_sold_in_month(connection, shop, unsold, *month) for month in changed))


def _read_unsold_at_first(connection: sa.Connection, shop: Shop) -> _UnsoldProducts:
    """What was unsold when this version was first read, with the counters of the months at that time."""
    unsold = products.read_never_sold_stubs(connection)
    if unsold:
        unsold &= set(offers.read_catalogue(connection, shop).covered_products["product_key"])
    return frozenset(unsold), frozenset(change_counters.read_month_counters(connection).items())


def _read_sold_in_month(
    connection: sa.Connection, shop: Shop, unsold: frozenset[int], month: str, counter: int
) -> frozenset[int]:
    return _SOLD_IN_MONTH.get(
        (shop, unsold, month, counter),
        lambda: frozenset(transactions.read_products_sold_in(connection, unsold, month)),
    )
