"""Training data of a run, without features: the calendar, sales and campaigns of a shop as known at one as_of."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import pandas as pd

from customers.ledger import interactions
from customers.marketing import offers
from customers.shop.settings import Shop
from features.families import engagement
from features.snapshots import snapshot
from training import calendar as training_calendar
from training.tasks import recommender
from training.tasks.task import TrainingData

#: A month: a shorter horizon would count a customer as churned who skipped two weekly trips.
MIN_CHURN_DAYS = 28
#: The offer model is trained on the latest days with a campaign, at most this many: some years of mailings.
MAX_CAMPAIGN_DATES = 40


@dataclass(frozen=True)
class CampaignHistory:
    """Campaigns as known at one as_of: offers, who received which campaign, and which offers were redeemed.

    `received` has columns customer_key, campaign_id, event_timestamp (UTC, start of the shop's day); `redemptions` has
    customer_key, offer_key, redeemed_at.
    """

    catalogue: offers.OfferCatalogue
    received: pd.DataFrame
    redemptions: pd.DataFrame

    @cached_property
    def deliveries(self) -> pd.DataFrame:
        """Which customer received a campaign when: columns customer_key, event_timestamp, each pair once."""
        pairs = self.received[["customer_key", "event_timestamp"]].drop_duplicates()
        return pairs.sort_values(["event_timestamp", "customer_key"], ignore_index=True)

    @cached_property
    def redeemable_offers(self) -> pd.DataFrame:
        """Every offer that a customer received: columns customer_key, as_of, offer_key, each triple once."""
        campaign_offers = self.catalogue.offers[["offer_key", "campaign_id"]].dropna()
        pairs = self.received.merge(campaign_offers, on="campaign_id").rename(columns={"event_timestamp": "as_of"})
        pairs = pairs.sort_values(["as_of", "customer_key", "offer_key"], ignore_index=True)
        return pairs[["customer_key", "as_of", "offer_key"]].drop_duplicates(ignore_index=True)

    def digest(self) -> str:
        """Sixteen hex digits: equal for equal offers, deliveries and redemptions."""
        frames = (
            self.catalogue.offers.drop(columns="channels"),
            self.catalogue.covered_products,
            self.received,
            self.redemptions,
        )
        sums = [int(pd.util.hash_pandas_object(frame.astype(str), index=False).sum()) for frame in frames]
        return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]


def load_training_data(shop: Shop, as_of: datetime) -> tuple[TrainingData, CampaignHistory]:
    """What labels are computed from, as known at `as_of`; there must be a sale before it."""
    first_day = snapshot.first_sale_day(shop.ledger, as_of, shop.timezone)
    assert first_day is not None, "callers check that there are purchases"
    calendar = training_calendar.TrainingCalendar(first_day, as_of, shop.timezone)
    campaigns = _load_campaign_history(shop, calendar)
    return _build_training_data(shop, calendar, campaigns), campaigns


def _build_training_data(
    shop: Shop, calendar: training_calendar.TrainingCalendar, campaigns: CampaignHistory
) -> TrainingData:
    ledger, as_of, zone = shop.ledger, calendar.as_of, shop.timezone
    history_start = calendar.cutoff_before(min(calendar.history_days, 3 * recommender.LIST_DAYS))
    return TrainingData(
        calendar,
        snapshot.load_purchases(ledger, as_of=as_of, timezone=zone, engine=shop.engine),
        {},
        _churn_horizon_days(shop, calendar),
        value_days=shop.value_days,
        category_days=snapshot.load_category_days(
            ledger, as_of=as_of, timezone=zone, start=history_start, engine=shop.engine
        ),
        redemptions=campaigns.redemptions,
        offers=campaigns.catalogue.offers[["offer_key", "campaign_id", "starts_at", "ends_at"]],
        products=snapshot.load_products(ledger),
    )


def _load_campaign_history(shop: Shop, calendar: training_calendar.TrainingCalendar) -> CampaignHistory:
    """Campaigns sent since the first sale; a delivery counts from the start of its day in the shop's timezone."""
    contacts = interactions.load_by_kind(shop, engagement.CONTACT_ACTIONS, as_of=calendar.as_of)
    days = contacts["happened_at"].dt.tz_convert(calendar.timezone).dt.normalize().dt.tz_convert("UTC")
    received = contacts.assign(event_timestamp=days.astype("datetime64[us, UTC]"))
    received = received[
        received["campaign_id"].notna() & (received["event_timestamp"] > calendar.cutoff_before(calendar.history_days))
    ]
    latest = received["event_timestamp"].drop_duplicates().nlargest(MAX_CAMPAIGN_DATES)
    received = received.loc[
        received["event_timestamp"].isin(latest), ["customer_key", "campaign_id", "event_timestamp"]
    ]
    catalogue = offers.load_catalogue(shop)
    return CampaignHistory(
        catalogue, received.reset_index(drop=True), interactions.load_redemptions(shop, as_of=calendar.as_of)
    )


def load_window_baskets(
    shop: Shop, calendar: training_calendar.TrainingCalendar, cutoffs: list[datetime], window_days: int
) -> dict[datetime, pd.DataFrame]:
    """Baskets bought in the window that follows each cutoff, by cutoff; columns as `snapshot.load_baskets`."""
    return {
        cutoff: snapshot.load_baskets(
            shop.ledger,
            as_of=calendar.as_of,
            start=cutoff,
            end=calendar.day_start(calendar.days_before_run(cutoff) - window_days),
            engine=shop.engine,
        )
        for cutoff in cutoffs
    }


def _churn_horizon_days(shop: Shop, calendar: training_calendar.TrainingCalendar) -> int:
    """The shop's setting, else a high quantile of the gaps between purchases.

    At least MIN_CHURN_DAYS and at most a quarter of the history, so that there are labels to learn from.
    """
    if shop.churn_days:
        return shop.churn_days
    gap_days = snapshot.gap_quantile(shop.ledger, as_of=calendar.as_of, timezone=shop.timezone, engine=shop.engine)
    horizon_days = MIN_CHURN_DAYS if math.isnan(gap_days) else max(MIN_CHURN_DAYS, math.ceil(gap_days))
    return max(1, min(horizon_days, calendar.history_days // 4))
