"""Outlook: what was known of a shop at a moment, without any features: its calendar, its sales, its campaigns."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import pandas as pd

from customers import interactions, offers
from customers.shop import Shop
from features import engagement, snapshot
from training import labels, plans
from training.plans import World

#: A month: a horizon shorter than that would call a customer lost who skipped two weekly trips.
LEAST_CHURN_DAYS = 28
#: Days on which campaigns went out that offers are learned from: the latest, some years of a shop's mailings.
MAILING_DAYS = 40


@dataclass(frozen=True)
class Past:
    """What the shop's campaigns came to, as known at a moment: who received which, and which offers were redeemed."""

    book: offers.Book
    received: pd.DataFrame
    redemptions: pd.DataFrame

    @cached_property
    def mailings(self) -> pd.DataFrame:
        """Who received anything at which moment: customer_key, event_timestamp, each pair once."""
        pairs = self.received[["customer_key", "event_timestamp"]].drop_duplicates()
        return pairs.sort_values(["event_timestamp", "customer_key"], ignore_index=True)

    @cached_property
    def wanted(self) -> pd.DataFrame:
        """Every offer that somebody could have redeemed: customer_key, as_of, offer_key, each once."""
        listed = self.book.offers[["offer_key", "campaign_id"]].dropna()
        pairs = self.received.merge(listed, on="campaign_id").rename(columns={"event_timestamp": "as_of"})
        pairs = pairs.sort_values(["as_of", "customer_key", "offer_key"], ignore_index=True)
        return pairs[["customer_key", "as_of", "offer_key"]].drop_duplicates(ignore_index=True)

    def digest(self) -> str:
        """The same for the same campaigns, receipts and redemptions."""
        frames = (self.book.offers.drop(columns="channels"), self.book.covers, self.received, self.redemptions)
        sums = [int(pd.util.hash_pandas_object(frame.astype(str), index=False).sum()) for frame in frames]
        return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]


def of(shop: Shop, moment: datetime) -> tuple[World, Past]:
    """What labels are cut from as of a moment, without any features: what may be counted before a night is run."""
    first = snapshot.first_day(shop.home / "ledger", moment, shop.timezone)
    assert first is not None, "whoever asks has seen that somebody bought something"
    calendar = labels.Calendar(first, moment, shop.timezone)
    past = _past(shop, calendar)
    return _world(shop, calendar, past), past


def _world(shop: Shop, calendar: labels.Calendar, past: Past) -> World:
    ledger, as_of, zone = shop.home / "ledger", calendar.as_of, shop.timezone
    watched = calendar.back(min(calendar.history_days, 3 * plans.LIST_DAYS))
    return World(
        calendar,
        snapshot.purchases(ledger, as_of=as_of, timezone=zone),
        {},
        _churn_days(shop, calendar),
        value_days=shop.value_days,
        category_days=snapshot.category_days(ledger, as_of=as_of, timezone=zone, start=watched),
        redemptions=past.redemptions,
        offers=past.book.offers[["offer_key", "campaign_id", "starts_at", "ends_at"]],
        products=snapshot.products(ledger),
    )


def _past(shop: Shop, calendar: labels.Calendar) -> Past:
    """Campaigns that went out while the shop's sales were known; what a customer can do with one begins that day."""
    happened = interactions.happened(shop, engagement.REACHING, as_of=calendar.as_of)
    days = happened["happened_at"].dt.tz_convert(calendar.timezone).dt.normalize().dt.tz_convert("UTC")
    received = happened.assign(event_timestamp=days.astype("datetime64[us, UTC]"))
    received = received[
        received["campaign_id"].notna() & (received["event_timestamp"] > calendar.back(calendar.history_days))
    ]
    latest = received["event_timestamp"].drop_duplicates().nlargest(MAILING_DAYS)
    received = received.loc[
        received["event_timestamp"].isin(latest), ["customer_key", "campaign_id", "event_timestamp"]
    ]
    book = offers.book(shop)
    return Past(book, received.reset_index(drop=True), interactions.redemptions(shop, as_of=calendar.as_of))


def baskets(
    ledger: Path, calendar: labels.Calendar, shelves: list[datetime], lists: int
) -> dict[datetime, pd.DataFrame]:
    """What everybody bought in the window after each of these moments."""
    return {
        moment: snapshot.bought(
            ledger, as_of=calendar.as_of, start=moment, end=calendar.day_start(calendar.days_back(moment) - lists)
        )
        for moment in shelves
    }


def _churn_days(shop: Shop, calendar: labels.Calendar) -> int:
    """The horizon after which silence is news: nearly all of the shop's gaps are shorter, and labels still fit."""
    if shop.churn_days:
        return shop.churn_days
    usual = snapshot.gap_quantile(shop.home / "ledger", as_of=calendar.as_of, timezone=shop.timezone)
    least = LEAST_CHURN_DAYS if math.isnan(usual) else max(LEAST_CHURN_DAYS, math.ceil(usual))
    return max(1, min(least, calendar.history_days // 4))
