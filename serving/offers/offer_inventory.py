"""The offer inventory: offers, sold-out and sensitive products, categories and margins, read in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from customers.catalogue import product_attributes, products
from customers.database import engine
from customers.database.version_cache import VersionCache
from customers.marketing import eligibility_inputs, offers
from customers.marketing.eligibility_inputs import CurrentOffers
from customers.marketing.offer_table import OfferTable, build_offer_table
from customers.shop.settings import Shop
from features.offers.category_affinity import ProductCategoryCodes


@dataclass(frozen=True, slots=True)
class OfferInventory:
    """The offers with the products that they cover, the products that are sold out, and those that are sensitive."""

    catalogue: offers.OfferCatalogue
    offer_table: OfferTable
    sold_out_products: frozenset[int]
    sensitive_products: frozenset[int]
    #: Categories of sensitive products only; of other categories the products that are not sensitive may be used.
    sensitive_categories: frozenset[str]
    #: The category and brand of each product.
    product_categories: ProductCategoryCodes
    #: The mean margin of the products of each offer key, as a share of their price, where their cost is known.
    margin_by_offer: pd.Series

    def filter_active(self, now: datetime) -> OfferInventory:
        """The same inventory with the offers that have begun by this time and have not ended."""
        active = self.catalogue.running_at(now)
        offer_table = build_offer_table(active.offers, active.covered_products, sold_out=self.sold_out_products)
        return replace(self, catalogue=active, offer_table=offer_table)


_INVENTORIES: VersionCache[OfferInventory] = VersionCache()


def load_offer_inventory(shop: Shop) -> OfferInventory:
    """The inventory now, all of it from one transaction; read again only where something of it has changed."""
    with engine.read_transaction(shop) as connection:
        current = eligibility_inputs.read_current_offers(connection, shop)
        key = (shop, current.version, current.unsold_products)
        return _INVENTORIES.get(key, lambda: _read_inventory(connection, shop, current))


def _read_inventory(connection: engine.Connection, shop: Shop, current: CurrentOffers) -> OfferInventory:
    sensitive_products, sensitive_categories = products.read_sensitive(connection)
    classified = products.read_classifications(connection)
    classifications = pd.DataFrame(
        {
            "product_key": classified.product_keys,
            "category": classified.categories,
            "subcategory": classified.subcategories,
            "brand": classified.brands,
        }
    )
    attributes = product_attributes.read_attributes(connection, shop)
    return OfferInventory(
        current.catalogue,
        current.offer_table,
        current.sold_out_products,
        frozenset(sensitive_products),
        frozenset(sensitive_categories),
        ProductCategoryCodes.from_catalogue(classifications),
        _mean_margins(attributes, current.catalogue.covered_products),
    )


def _mean_margins(attributes: product_attributes.ProductAttributes, covers: pd.DataFrame) -> pd.Series:
    margin = (
        attributes.margin[attributes.row_indices(covers["product_key"].to_numpy(np.int64))]
        if len(attributes.keys)
        else np.nan
    )
    return covers.assign(margin=margin).dropna().groupby("offer_key")["margin"].mean()


def load_prices(feature_folder: Path) -> pd.DataFrame:
    """The price of each product as of the last night: columns product_key, event_timestamp, price, sold.

    Empty before the first night.
    """
    path = feature_folder / "prices" / "part.parquet"
    if not path.exists():
        return pd.DataFrame(
            {"product_key": [], "event_timestamp": pd.to_datetime([], utc=True), "price": [], "sold": []}
        )
    return _read_prices(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read_prices(path: Path, _changed: int) -> pd.DataFrame:
    latest_at = pc.max(pq.read_table(path, columns=["event_timestamp"])["event_timestamp"])
    return pq.read_table(path, filters=pc.field("event_timestamp") == latest_at).to_pandas()
