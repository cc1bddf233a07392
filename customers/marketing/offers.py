"""Offers: coupons, discounts and gifts that the shop can make, each with its dates and what it is for."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np
import pandas as pd
import sqlalchemy as sa

from customers.database import change_counters, engine, ids
from customers.database.schema import offer_categories, offer_products, offers, products
from customers.shop import money
from customers.shop.settings import Shop

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
    """The offers of the shop, one a row, and the products that each covers; money in major units."""

    offers: pd.DataFrame
    covered_products: pd.DataFrame


def load_catalogue(shop: Shop, *, running_at: datetime | None = None) -> OfferCatalogue:
    """Every offer, or those that run at a moment; an offer on a category covers the category's products of today."""
    full_catalogue = _load_version(shop, change_counters.catalogue_version(shop))
    all_offers = full_catalogue.offers
    if running_at is None:
        return OfferCatalogue(all_offers.copy(), full_catalogue.covered_products.copy())
    running = all_offers[(all_offers["starts_at"] <= running_at) & (all_offers["ends_at"] > running_at)].reset_index(
        drop=True
    )
    return OfferCatalogue(
        running,
        full_catalogue.covered_products[
            full_catalogue.covered_products["offer_key"].isin(running["offer_key"])
        ].reset_index(drop=True),
    )


@lru_cache(maxsize=4)
def _load_version(shop: Shop, _version: tuple[int, int]) -> OfferCatalogue:
    """The whole book, read once an edition: there are far more products on offer than offers."""
    with engine.read_transaction(shop) as connection:
        rows = connection.execute(offers.select().order_by(offers.c.offer_key)).mappings().all()
        covered_products = _load_covered_products(connection)
        sensitive_keys = (
            connection.execute(sa.select(products.c.product_key).where(products.c.sensitive)).scalars().all()
        )
    frame = _to_frame(pd.DataFrame(rows, columns=[column.name for column in offers.columns]), shop.currency)
    frame["sensitive"] = frame["offer_key"].isin(
        covered_products.loc[covered_products["product_key"].isin(sensitive_keys), "offer_key"]
    )
    return OfferCatalogue(frame.reindex(columns=list(CATALOGUE_COLUMNS)).astype(CATALOGUE_COLUMNS), covered_products)


def find_ids(shop: Shop, offer_keys: Iterable[int]) -> dict[int, str]:
    """The id of each offer key; `source:id` where two sources use the same id."""
    with engine.read_transaction(shop) as connection:
        return ids.find_ids(connection, offers, offer_keys, "offer")


def _load_covered_products(connection: sa.Connection) -> pd.DataFrame:
    by_product = sa.select(offer_products.c.offer_key, offer_products.c.product_key)
    by_category = sa.select(offer_categories.c.offer_key, products.c.product_key).join(
        products, products.c.category == offer_categories.c.category
    )
    columns: list[np.ndarray] = []
    for rows in engine.fetch_batches(connection, sa.union(by_product, by_category), 1_000_000):
        columns.append(np.array(list(zip(*rows, strict=True)), np.int64))
    keys = np.concatenate([np.empty((2, 0), np.int64), *columns], axis=1)
    keys = keys[:, np.lexsort((keys[1], keys[0]))]
    return pd.DataFrame({"offer_key": keys[0], "product_key": keys[1]})


def _to_frame(frame: pd.DataFrame, currency: str) -> pd.DataFrame:
    """Money of another currency is not known in the shop's own, as in the lines: nothing weighs yen against dollars."""
    is_own_currency, minor_per_major = frame["currency"] == currency, float(10 ** money.EXPONENTS[currency])
    return frame.assign(
        value=frame["value"].astype("float64").where(is_own_currency | (frame["value_kind"] != "amount")),
        min_spend=frame["min_spend_minor"].astype("float64").where(is_own_currency) / minor_per_major,
        budget=frame["budget_minor"].astype("float64").where(is_own_currency) / minor_per_major,
        channels=[json.loads(channel_list) for channel_list in frame["channels"]],
        starts_at=pd.to_datetime(frame["starts_at"].astype("int64"), unit="us", utc=True),
        ends_at=pd.to_datetime(frame["ends_at"].astype("int64"), unit="us", utc=True),
    )
