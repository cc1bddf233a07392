"""Redeemers: the customers most likely to redeem an offer, among those who are eligible for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from customers.marketing import eligibility, eligibility_inputs
from customers.marketing.offer_table import build_offer_table
from customers.marketing.offers import OfferCatalogue
from models.registry.bundle import Champion
from serving.audiences import population
from serving.audiences.population import RankedCustomers, count_reasons
from serving.offers import offer_inventory
from serving.offers.offer_inventory import OfferInventory
from serving.runtime import ServerRuntime
from serving.scoring import fallback, offers

#: Customers scored at a time: all that a customer ever received is loaded with them.
BATCH_SIZE = 2_000
UNKNOWN_OFFER = "the shop does not know this offer"


def rank_redeemers(runtime: ServerRuntime, offer_id: str, n: int, channel: str | None) -> RankedCustomers:
    """Rank the eligible customers by P(they redeem the offer), most probable first, with reasons for the first n."""
    champion, campaign = runtime.champion("offers"), _campaign_inventory(runtime.get_inventory(), offer_id)
    candidates = population.load_population(runtime, channel)
    empty = RankedCustomers(
        np.empty(0, np.int64), np.empty(0), {}, candidates.as_of, {}, None, fallback.uses_fallback(champion), champion,
        empty_reason=UNKNOWN_OFFER,
    )  # fmt: skip
    if campaign is None:
        return empty
    parts = [candidates.keys[start : start + BATCH_SIZE] for start in range(0, len(candidates.keys), BATCH_SIZE)]
    batches = [_score_batch(runtime, champion, *campaign, part.tolist(), channel) for part in parts]
    if not batches:
        return replace(empty, excluded_counts=candidates.excluded_counts, empty_reason=None)
    ranked = pd.concat([scored for scored, _ in batches])
    ranked = ranked.sort_values(["p", "customer_key"], ascending=[False, True])
    reason_by_key = dict(zip(ranked["customer_key"].tolist()[:n], ranked["reason"].tolist()[:n], strict=True))
    excluded_counts = candidates.excluded_counts | count_reasons(
        [reason for _, reasons in batches for reason in reasons]
    )
    return replace(
        empty,
        keys=ranked["customer_key"].to_numpy(np.int64),
        probabilities=ranked["p"].to_numpy(np.float64),
        reason_by_key=reason_by_key,
        excluded_counts=excluded_counts,
        empty_reason=None,
    )


def _campaign_inventory(inventory: OfferInventory, offer_id: str) -> tuple[OfferInventory, int] | None:
    """The inventory with only the offers of this one's campaign, and its position; None for an unknown offer id.

    An offer is scored among those of its campaign: the more there are, the less likely a customer redeems this one.
    """
    all_offers = inventory.catalogue.offers
    positions = np.flatnonzero(all_offers["public_id"] == offer_id)
    if not len(positions):
        return None
    campaign = all_offers["campaign_id"].iloc[positions[0]]
    is_same_campaign = all_offers["campaign_id"].isna() if pd.isna(campaign) else all_offers["campaign_id"] == campaign
    campaign_offers = all_offers[is_same_campaign].reset_index(drop=True)
    campaign_covers = inventory.catalogue.covered_products[
        inventory.catalogue.covered_products["offer_key"].isin(campaign_offers["offer_key"])
    ].reset_index(drop=True)
    table = build_offer_table(campaign_offers, campaign_covers, sold_out=inventory.sold_out_products)
    return replace(inventory, catalogue=OfferCatalogue(campaign_offers, campaign_covers), offer_table=table), int(
        np.flatnonzero(campaign_offers["public_id"] == offer_id)[0]
    )


def _score_batch(
    runtime: ServerRuntime,
    champion: Champion,
    inventory: OfferInventory,
    column: int,
    keys: list[int],
    channel: str | None,
) -> tuple[pd.DataFrame, list[str]]:
    """Score the offer for the eligible customers of a batch, and list why each of the others is not eligible.

    The frame has the columns customer_key, p, reason, a row per eligible customer.
    """
    features = runtime.load_features(champion, keys).iloc[: len(keys)].reset_index(drop=True)
    basket_values = runtime.load_basket_values(keys) if inventory.catalogue.offers["min_spend"].notna().any() else None
    context = offers.OfferContext(
        inventory,
        eligibility_inputs.with_budgets_as_of(runtime.shop, inventory.offer_table),
        offer_inventory.load_prices(runtime.features.folder),
        runtime.now(),
        runtime.shop.currency,
    )
    offered = offers.score_offers(
        champion.model, context, features, eligibility_inputs.load_customer_state(runtime.shop, keys, basket_values)
    )
    codes = offers.restrict_to_request(offered, channel=channel)[:, column]
    scored = offered.ranking[offered.ranking["column"] == column]
    scored = scored[codes[scored["row"].to_numpy(np.int64)] == 0][["customer_key", "p", "reason"]]
    return scored, [eligibility.REASONS[code] for code in codes.tolist() if code]
