"""Stall: what there is to sell and to offer now, read once, and again only when something of it has changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from customers.catalogue import product_attributes, products
from customers.database import change_counters
from customers.ledger import interactions, transactions
from customers.marketing import eligibility, offers
from customers.marketing.eligibility import OfferTable
from customers.shop.settings import Shop
from features.offers.category_affinity import ProductCategoryCodes


@dataclass(frozen=True, slots=True)
class OfferInventory:
    """The book of offers, the products that nobody can have now, and those that not everybody may be shown."""

    catalogue: offers.OfferCatalogue
    offer_table: OfferTable
    sold_out_products: frozenset[int]
    sensitive_products: frozenset[int]
    #: All of whose products are sensitive; of any other, what is known comes from the products that are not.
    sensitive_categories: frozenset[str]
    #: Of what sort each product is.
    product_categories: ProductCategoryCodes
    #: What is earned on the products of each offer key, as a share of their price, where their cost is known.
    margin_by_offer: pd.Series

    def filter_active(self, now: datetime) -> OfferInventory:
        """The same, with the offers alone that can be used at this moment."""
        active_offers, covers = self.catalogue.offers, self.catalogue.covered_products
        active_offers = active_offers[
            (active_offers["starts_at"] <= now) & (active_offers["ends_at"] > now)
        ].reset_index(drop=True)
        covers = covers[covers["offer_key"].isin(active_offers["offer_key"])].reset_index(drop=True)
        offer_table = eligibility.build_offer_table(active_offers, covers, sold_out=self.sold_out_products)
        return replace(self, catalogue=offers.OfferCatalogue(active_offers, covers), offer_table=offer_table)


def load_offer_inventory(shop: Shop) -> OfferInventory:
    """What there is now."""
    edition = change_counters.catalogue_version(shop)
    return _read_inventory(shop, edition, _unsold_products(shop, edition))


def _unsold_products(shop: Shop, edition: tuple[int, int]) -> frozenset[int]:
    """Products on offer that nobody has bought yet: of sales since, only the months that they fell in are read."""
    candidates, months_before = _initially_unsold(shop, edition)
    if not candidates:
        return candidates
    changed = [month for month in change_counters.month_counters(shop).items() if month not in months_before]
    return candidates.difference(*(_sold_in_month(shop, candidates, *month) for month in changed))


@lru_cache(maxsize=4)
def _initially_unsold(shop: Shop, _edition: tuple[int, int]) -> tuple[frozenset[int], frozenset[tuple[str, int]]]:
    """What of an edition was unsold when it was first looked at, and how the months stood then."""
    months = change_counters.month_counters(shop)  # before the sales: one that comes between is read once more
    return frozenset(
        products.load_never_sold_stubs(shop) & set(offers.load_catalogue(shop).covered_products["product_key"])
    ), frozenset(months.items())


@lru_cache(maxsize=64)
def _sold_in_month(shop: Shop, candidates: frozenset[int], month: str, _changed: int) -> frozenset[int]:
    return frozenset(transactions.products_sold_in(shop, candidates, month))


@lru_cache(maxsize=4)
def _read_inventory(shop: Shop, _edition: tuple[int, int], unsold: frozenset[int]) -> OfferInventory:
    sensitive, categories = products.load_sensitive(shop)
    full_catalogue, sold_out = offers.load_catalogue(shop), frozenset(products.load_sold_out(shop))
    covers = full_catalogue.covered_products[~full_catalogue.covered_products["product_key"].isin(unsold)].reset_index(
        drop=True
    )
    offer_catalogue = offers.OfferCatalogue(full_catalogue.offers, covers)
    offer_catalogue.offers["called"] = offer_catalogue.offers["offer_key"].map(
        offers.find_ids(shop, offer_catalogue.offers["offer_key"])
    )
    offer_table = eligibility.build_offer_table(
        offer_catalogue.offers, offer_catalogue.covered_products, sold_out=sold_out
    )
    product_words = pd.DataFrame(
        products.load_classifications(shop), columns=["product_key", "category", "subcategory", "brand"]
    )
    product_categories, margins = ProductCategoryCodes.from_catalogue(product_words), _offer_margins(shop, covers)
    return OfferInventory(
        offer_catalogue, offer_table, sold_out, frozenset(sensitive), frozenset(categories), product_categories, margins
    )


def _offer_margins(shop: Shop, covers: pd.DataFrame) -> pd.Series:
    attributes = product_attributes.load_attributes(shop)
    margin = (
        attributes.margin[attributes.row_indices(covers["product_key"].to_numpy(np.int64))]
        if len(attributes.keys)
        else np.nan
    )
    return covers.assign(margin=margin).dropna().groupby("offer_key")["margin"].mean()


def load_offer_table(shop: Shop, inventory: OfferInventory, *, before: datetime | None = None) -> OfferTable:
    """The offers and what holds for each now, or held before a moment.

    Who redeemed them is asked only where one has a budget to spend.
    """
    if not inventory.offer_table.offers["budget"].notna().any():
        return inventory.offer_table
    return eligibility.budget_spent(
        inventory.offer_table, interactions.load_redemptions(shop, before)["offer_key"].value_counts()
    )


def load_prices(feature_folder: Path) -> pd.DataFrame:
    """What each product went for before the last night; before the first, nothing is known."""
    path = feature_folder / "prices" / "part.parquet"
    if not path.exists():
        return pd.DataFrame(
            {"product_key": [], "event_timestamp": pd.to_datetime([], utc=True), "price": [], "sold": []}
        )
    return _read_prices(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read_prices(path: Path, _changed: int) -> pd.DataFrame:
    price_rows = pd.read_parquet(path)
    return price_rows[price_rows["event_timestamp"] == price_rows["event_timestamp"].max()].reset_index(drop=True)
