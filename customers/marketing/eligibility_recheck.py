"""Validity: of the offers that were found for customers, those that may still be made to them.

A model spoke in the night; since then an offer may have ended, been redeemed, sold out or paid out, and a customer
may have said no or been contacted often enough. Whoever shows what a model found asks here first.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers import catalogue, clock, consent, contacts, interactions, offers, scores
from customers.shop import Shop

# A night is good for a day and may come late; what was said longer ago is a day gone by.
PAST = timedelta(days=2)


def may_be_made(shop: Shop, found: pd.DataFrame, *, as_of: datetime | None = None) -> pd.Series:
    """Of each row (customer_key, offer_key), as what was said as of a moment: whether the offer may be made now.

    Of a day gone by it is judged as that day could: by what was known before, and not by today's stock. What a
    customer has not allowed is never named, whatever the day.
    """
    at, before = standpoint(shop, as_of)
    book = offers.book(shop, at=at).offers.set_index("offer_key")
    if before is None:
        book = book.drop(index=book.index.intersection(list(_sold_out(shop, offers.edition(shop)))))
    used = _redeemed(shop, found, book, before)
    book = book[~spent(book.reset_index(), used["offer_key"].value_counts())]
    pairs = pd.MultiIndex.from_frame(found[["customer_key", "offer_key"]])
    open_ = found["offer_key"].isin(book.index) & ~pairs.isin(pd.MultiIndex.from_frame(used[list(pairs.names)]))
    listed = found[open_]
    may = _discreet(shop, listed, book) & _reached(shop, listed, book)
    may &= ~_one_too_many(shop, listed, book, at, before=before)
    return may.reindex(found.index, fill_value=False).astype(bool)


def standpoint(shop: Shop, as_of: datetime | None) -> tuple[datetime, datetime | None]:
    """When what was said as of a moment is judged, and before when it had to be known; None for all that is known."""
    now = clock.now(shop)
    if as_of is not None and _is_past(shop, as_of):
        return as_of, as_of
    return (now if as_of is None else max(now, as_of)), None


def spent(listed: pd.DataFrame, redeemed: pd.Series) -> NDArray[np.bool_]:
    """Which of these offers have paid out their budget; `redeemed` is how often each offer key was, by anybody."""
    value = listed["value"].where(listed["value_kind"] == "amount").fillna(0).to_numpy(np.float64)
    given = listed["offer_key"].map(redeemed).fillna(0).to_numpy(np.float64) * value
    return np.asarray(given >= listed["budget"].to_numpy(np.float64))


def _is_past(shop: Shop, as_of: datetime) -> bool:
    """Whether another night has looked since, or should have."""
    run = scores.newest(shop, "offers")
    return (run is not None and run.as_of > as_of) or as_of < clock.now(shop) - PAST


def _redeemed(shop: Shop, found: pd.DataFrame, book: pd.DataFrame, before: datetime | None) -> pd.DataFrame:
    """Who redeemed what: everybody, where a budget is to be spent, and else those who are asked about."""
    keys = None if book["budget"].notna().any() else found["customer_key"].unique().tolist()
    return interactions.redemptions(shop, before, keys=keys)


@lru_cache(maxsize=4)
def _sold_out(shop: Shop, _edition: tuple[int, int]) -> frozenset[int]:
    """The offers of which every product is counted and gone, looked up once an edition of the book."""
    covers = offers.book(shop).covers
    gone = covers["product_key"].isin(list(catalogue.sold_out(shop))).groupby(covers["offer_key"]).all()
    return frozenset(gone.index[gone.to_numpy(bool)])


def _discreet(shop: Shop, listed: pd.DataFrame, book: pd.DataFrame) -> pd.Series:
    guarded = listed["offer_key"].isin(book.index[book["sensitive"]])
    asked = listed.loc[guarded, "customer_key"].unique()
    sees = consent.allowed(shop, asked, "profiling_sensitive") if len(asked) else set()
    return ~guarded | listed["customer_key"].isin(sees)


def _reached(shop: Shop, listed: pd.DataFrame, book: pd.DataFrame) -> pd.Series:
    """Where some channel of the offer is one on which the customer may be met; one without channels is everywhere."""
    allowed = consent.channels(shop, listed["customer_key"].unique())
    mine = listed["customer_key"].map({key: _bits([*on, *consent.OPEN_CHANNELS]) for key, on in allowed.items()})
    made = listed["offer_key"].map({key: _bits(on) for key, on in book["channels"].items()})
    met = mine.to_numpy(np.int64) & made.to_numpy(np.int64)
    return pd.Series((met != 0) | (made.to_numpy(np.int64) == 0), listed.index, dtype=bool)


def _one_too_many(
    shop: Shop, listed: pd.DataFrame, book: pd.DataFrame, at: datetime, *, before: datetime | None
) -> pd.Series:
    """Where the offer asks for one more contact than the shop allows.

    What is made in the shop or on its site asks for none, nor does a campaign that has reached the customer already.
    """
    open_ = _bits(consent.OPEN_CHANNELS)
    calling = [key for key, on in book["channels"].items() if len(on) and not _bits(on) & open_]
    calls = listed["offer_key"].isin(calling)
    if shop.contact_cap is None or not calls.any():
        return pd.Series(False, listed.index)
    met = contacts.of(shop, listed.loc[calls, "customer_key"].unique().tolist(), before=before)
    tired = listed["customer_key"].isin(list(contacts.enough(shop, met, at)))
    about = pd.MultiIndex.from_arrays([listed["customer_key"], listed["offer_key"].map(book["campaign_id"])])
    reached = about.isin(pd.MultiIndex.from_frame(met[["customer_key", "campaign_id"]].dropna()))
    return calls & tired & ~reached


def _bits(channels: Iterable[str]) -> int:
    """Some channels as one number, a bit each: quick to compare for many customers and offers."""
    return sum(1 << interactions.CHANNELS.index(channel) for channel in set(channels))
