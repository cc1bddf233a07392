"""Stall: what there is to sell and to offer now, read once, and again only when something of it has changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from customers import assortment, catalogue, interactions, offers, transactions
from customers.shop import Shop
from features.sorts import Sorts
from serving import eligibility
from serving.eligibility import Table


@dataclass(frozen=True, slots=True)
class Stall:
    """The book of offers, the products that nobody can have now, and those that not everybody may be shown."""

    book: offers.Book
    table: Table
    sold_out: frozenset[int]
    sensitive: frozenset[int]
    #: All of whose products are sensitive; of any other, what is known comes from the products that are not.
    sensitive_categories: frozenset[str]
    #: Of what sort each product is.
    sorts: Sorts
    #: What is earned on the products of each offer key, as a share of their price, where their cost is known.
    margins: pd.Series

    def running(self, now: datetime) -> Stall:
        """The same, with the offers alone that can be used at this moment."""
        offers_, covers = self.book.offers, self.book.covers
        offers_ = offers_[(offers_["starts_at"] <= now) & (offers_["ends_at"] > now)].reset_index(drop=True)
        covers = covers[covers["offer_key"].isin(offers_["offer_key"])].reset_index(drop=True)
        table = eligibility.lay_out(offers_, covers, sold_out=self.sold_out)
        return replace(self, book=offers.Book(offers_, covers), table=table)


def of(shop: Shop) -> Stall:
    """What there is now."""
    edition = offers.edition(shop)
    return _read(shop, edition, _unsold(shop, edition))


def _unsold(shop: Shop, edition: tuple[int, int]) -> frozenset[int]:
    """Products on offer that nobody has bought yet: of sales since, only the months that they fell in are read."""
    named, before = _never_sold(shop, edition)
    if not named:
        return named
    changed = [month for month in transactions.months(shop).items() if month not in before]
    return named.difference(*(_sold(shop, named, *month) for month in changed))


@lru_cache(maxsize=4)
def _never_sold(shop: Shop, _edition: tuple[int, int]) -> tuple[frozenset[int], frozenset[tuple[str, int]]]:
    """What of an edition was unsold when it was first looked at, and how the months stood then."""
    months = transactions.months(shop)  # before the sales: one that comes between is read once more
    return frozenset(catalogue.unsold(shop) & set(offers.book(shop).covers["product_key"])), frozenset(months.items())


@lru_cache(maxsize=64)
def _sold(shop: Shop, named: frozenset[int], month: str, _changed: int) -> frozenset[int]:
    return frozenset(transactions.sold_in(shop, named, month))


@lru_cache(maxsize=4)
def _read(shop: Shop, _edition: tuple[int, int], unsold: frozenset[int]) -> Stall:
    guarded, categories = catalogue.sensitive(shop)
    whole, sold_out = offers.book(shop), frozenset(catalogue.sold_out(shop))
    covers = whole.covers[~whole.covers["product_key"].isin(unsold)].reset_index(drop=True)
    book = offers.Book(whole.offers, covers)
    book.offers["called"] = book.offers["offer_key"].map(offers.ids_of(shop, book.offers["offer_key"]))
    table = eligibility.lay_out(book.offers, book.covers, sold_out=sold_out)
    words = pd.DataFrame(catalogue.words(shop), columns=["product_key", "category", "subcategory", "brand"])
    sorts, margins = Sorts.read(words), _margins(shop, covers)
    return Stall(book, table, sold_out, frozenset(guarded), frozenset(categories), sorts, margins)


def _margins(shop: Shop, covers: pd.DataFrame) -> pd.Series:
    ware = assortment.of(shop)
    margin = ware.margin[ware.places(covers["product_key"].to_numpy(np.int64))] if len(ware.keys) else np.nan
    return covers.assign(margin=margin).dropna().groupby("offer_key")["margin"].mean()


def on_the_table(shop: Shop, stall: Stall, *, before: datetime | None = None) -> Table:
    """The offers and what holds for each now, or held before a moment.

    Who redeemed them is asked only where one has a budget to spend.
    """
    if not stall.table.offers["budget"].notna().any():
        return stall.table
    return eligibility.paid_out(stall.table, interactions.redemptions(shop, before)["offer_key"].value_counts())


def prices(features: Path) -> pd.DataFrame:
    """What each product went for before the last night; before the first, nothing is known."""
    path = features / "prices" / "part.parquet"
    if not path.exists():
        return pd.DataFrame(
            {"product_key": [], "event_timestamp": pd.to_datetime([], utc=True), "price": [], "sold": []}
        )
    return _prices(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _prices(path: Path, _changed: int) -> pd.DataFrame:
    told = pd.read_parquet(path)
    return told[told["event_timestamp"] == told["event_timestamp"].max()].reset_index(drop=True)
