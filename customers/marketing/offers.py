"""Reads the offers of the shop: coupons, discounts and gifts, each with its dates and the products that it covers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
import sqlalchemy as sa

from customers.database import change_counters, engine, ids
from customers.database.schema import offer_categories, offer_products, offers, products
from customers.database.version_cache import VersionCache
from customers.shop import money
from customers.shop.settings import Shop

#: Number of rows read at once.
BATCH_SIZE = 20_000

CATALOGUE_COLUMNS = {
    "offer_key": "int64",
    "offer_id": "object",
    "campaign_id": "object",
    "name": "object",
    "kind": "object",
    "starts_at": "datetime64[us, UTC]",
    "ends_at": "datetime64[us, UTC]",
    "value": "float64",
    "value_kind": "object",
    "min_spend": "float64",
    "budget": "float64",
    "currency": "object",
    "channels": "object",
    "segment": "object",
    "audience": "object",
    "sensitive": "bool",
}


@dataclass(frozen=True, slots=True)
class OfferCatalogue:
    """The offers of a shop and the products that each covers; money in major units of the shop's currency.

    `offers` has the columns of CATALOGUE_COLUMNS, one row per offer by rising key; `covered_products` has the columns
    offer_key and product_key.
    """

    offers: pd.DataFrame
    covered_products: pd.DataFrame

    def running_at(self, at: datetime) -> OfferCatalogue:
        """The offers that have begun by this time and have not ended, with their products."""
        is_running = (self.offers["starts_at"] <= at) & (self.offers["ends_at"] > at)
        running = self.offers[is_running].reset_index(drop=True)
        is_covered = self.covered_products["offer_key"].isin(running["offer_key"])
        return OfferCatalogue(running, self.covered_products[is_covered].reset_index(drop=True))


def load_catalogue(shop: Shop) -> OfferCatalogue:
    """Every offer; an offer on a category covers the products that the category has today."""
    with engine.read_transaction(shop) as connection:
        catalogue = read_catalogue(connection, shop)
    return OfferCatalogue(catalogue.offers.copy(), catalogue.covered_products.copy())


def read_catalogue(connection: sa.Connection, shop: Shop) -> OfferCatalogue:
    """As `load_catalogue`, in a transaction of the caller, who must not change the frames: they are cached."""
    version = change_counters.read_catalogue_version(connection)
    return _CATALOGUES.get((shop, version), lambda: _read_version(connection, shop.currency))


def find_ids(shop: Shop, offer_keys: Iterable[int]) -> dict[int, str]:
    """The id of each offer key; `source:id` where two sources use the same id."""
    with engine.read_transaction(shop) as connection:
        return read_ids(connection, offer_keys)


def read_ids(connection: sa.Connection, offer_keys: Iterable[int]) -> dict[int, str]:
    """As `find_ids`, in a transaction of the caller."""
    return ids.find_ids(connection, offers, offer_keys, "offer")


_CATALOGUES: VersionCache[OfferCatalogue] = VersionCache()


def _read_version(connection: sa.Connection, currency: str) -> OfferCatalogue:
    rows = connection.execute(offers.select().order_by(offers.c.offer_key)).mappings().all()
    covered_products = _read_covered_products(connection)
    sensitive_keys = connection.execute(sa.select(products.c.product_key).where(products.c.sensitive)).scalars().all()
    frame = _to_frame(pd.DataFrame(rows, columns=[column.name for column in offers.columns]), currency)
    frame["sensitive"] = frame["offer_key"].isin(
        covered_products.loc[covered_products["product_key"].isin(sensitive_keys), "offer_key"]
    )
    return OfferCatalogue(frame.reindex(columns=list(CATALOGUE_COLUMNS)).astype(CATALOGUE_COLUMNS), covered_products)


def _read_covered_products(connection: sa.Connection) -> pd.DataFrame:
    by_product = sa.select(offer_products.c.offer_key, offer_products.c.product_key)
    by_category = sa.select(offer_categories.c.offer_key, products.c.product_key).join(
        products, products.c.category == offer_categories.c.category
    )
    columns: list[np.ndarray] = []
    for rows in engine.fetch_batches(connection, sa.union(by_product, by_category), BATCH_SIZE):
        columns.append(np.array(list(zip(*rows, strict=True)), np.int64))
    keys = np.concatenate([np.empty((2, 0), np.int64), *columns], axis=1)
    keys = keys[:, np.lexsort((keys[1], keys[0]))]
    return pd.DataFrame({"offer_key": keys[0], "product_key": keys[1]})


def _to_frame(frame: pd.DataFrame, currency: str) -> pd.DataFrame:
    """Rows of the database in the units of a catalogue.

    Amounts in another currency than the shop's are missing, as in the ledger: yen are not compared with dollars.
    """
    is_own_currency, minor_per_major = frame["currency"] == currency, float(10 ** money.EXPONENTS[currency])
    return frame.assign(
        value=frame["value"].astype("float64").where(is_own_currency | (frame["value_kind"] != "amount")),
        min_spend=frame["min_spend_minor"].astype("float64").where(is_own_currency) / minor_per_major,
        budget=frame["budget_minor"].astype("float64").where(is_own_currency) / minor_per_major,
        channels=[json.loads(channel_list) for channel_list in frame["channels"]],
        starts_at=pd.to_datetime(frame["starts_at"].astype("int64"), unit="us", utc=True),
        ends_at=pd.to_datetime(frame["ends_at"].astype("int64"), unit="us", utc=True),
    )
