"""Redeemers: who is likeliest to redeem one offer, of those to whom it may be made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from customers.offers import Book
from models.bundle import Champion
from serving import crowd, eligibility, fresh, offering, stall
from serving.crowd import Found, counted
from serving.desk import Desk
from serving.stall import Stall

#: So many are asked about together: with each of them comes everything they ever received.
PORTION = 2_000
UNKNOWN = "the shop does not know this offer"


def found(desk: Desk, offer_id: str, n: int, channel: str | None) -> Found:
    """Everybody to whom the offer may be made, the likeliest to redeem it first, with why it suits the first n."""
    champion, campaign = desk.champion("offers"), _campaign(desk.goods(), offer_id)
    gathered = crowd.gather(desk, channel)
    none = Found(
        np.empty(0, np.int64), np.empty(0), {}, gathered.as_of, {}, None, fresh.stands_in(champion), champion,
        reason=UNKNOWN,
    )  # fmt: skip
    if campaign is None:
        return none
    parts = [gathered.keys[start : start + PORTION] for start in range(0, len(gathered.keys), PORTION)]
    asked = [_asked(desk, champion, *campaign, part.tolist(), channel) for part in parts]
    if not asked:
        return replace(none, left_out=gathered.left_out, reason=None)
    ranked = pd.concat([made for made, _ in asked])
    ranked = ranked.sort_values(["p", "customer_key"], ascending=[False, True])
    why = dict(zip(ranked["customer_key"].tolist()[:n], ranked["reason"].tolist()[:n], strict=True))
    left_out = gathered.left_out | counted([reason for _, reasons in asked for reason in reasons])
    return replace(
        none, keys=ranked["customer_key"].to_numpy(np.int64), chances=ranked["p"].to_numpy(np.float64), why=why,
        left_out=left_out, reason=None,
    )  # fmt: skip


def _campaign(stock: Stall, offer_id: str) -> tuple[Stall, int] | None:
    """The stall with the offers of this one's campaign alone, and its place; None where there is none of this name.

    An offer is judged beside its rivals: the same customer redeems it less likely among many.
    """
    every = stock.book.offers
    places = np.flatnonzero(every["called"] == offer_id)
    if not len(places):
        return None
    campaign = every["campaign_id"].iloc[places[0]]
    same = every["campaign_id"].isna() if pd.isna(campaign) else every["campaign_id"] == campaign
    offers = every[same].reset_index(drop=True)
    covers = stock.book.covers[stock.book.covers["offer_key"].isin(offers["offer_key"])].reset_index(drop=True)
    table = eligibility.lay_out(offers, covers, sold_out=stock.sold_out)
    return replace(stock, book=Book(offers, covers), table=table), int(np.flatnonzero(offers["called"] == offer_id)[0])


def _asked(
    desk: Desk, champion: Champion, stock: Stall, column: int, keys: list[int], channel: str | None
) -> tuple[pd.DataFrame, list[str]]:
    """The offer to each of these customers to whom it may be made, and of the others why not."""
    figures = desk.figures(champion, keys).iloc[: len(keys)].reset_index(drop=True)
    baskets = desk.baskets(keys) if stock.book.offers["min_spend"].notna().any() else None
    occasion = offering.Occasion(
        stock, stall.on_the_table(desk.shop, stock), stall.prices(desk.features.folder), desk.now(), desk.shop.currency
    )
    offered = offering.offer(champion.model, occasion, figures, offering.standing(desk.shop, keys, baskets))
    verdict = offering.wished(offered, channel=channel)[:, column]
    made = offered.ranked[offered.ranked["column"] == column]
    made = made[verdict[made["row"].to_numpy(np.int64)] == 0][["customer_key", "p", "reason"]]
    return made, [eligibility.REASONS[code] for code in verdict.tolist() if code]
