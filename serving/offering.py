"""Offering: which offers may be made to each customer, how likely each is to be redeemed, and why it is made.

What may be made comes first; only that is asked of a model. Who has no figures, or allows nobody to look at them,
gets what is made to everybody, soonest to end first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers import consent, interactions, mirror, money
from customers.shop import Shop
from features import appeal
from models.base import Model
from serving import eligibility, scorer, words
from serving.eligibility import Codes, Standing, Table
from serving.scorer import Floats
from serving.stall import Stall


@dataclass(frozen=True)
class Occasion:
    """What there is to offer, as it lies on the table, what it went for, and when it is."""

    stall: Stall
    table: Table
    prices: pd.DataFrame
    now: datetime
    currency: str


@dataclass(frozen=True)
class Offered:
    """What is offered to the customers of a frame: the table, the verdict on every cell of it, and the ranking.

    `ranked` has a row an offer that may be made, each customer's likeliest first: row, column, customer_key,
    offer_key, p, expected_gain (NaN where unknown), source, reason.
    """

    table: Table
    standing: Standing
    verdict: Codes
    ranked: pd.DataFrame


def standing(
    shop: Shop, keys: Sequence[int], baskets: Floats | None = None, *, before: datetime | None = None
) -> Standing:
    """What is known of these customers, in their order, and was known before a moment, if one is given.

    `baskets` are what the usual basket of each is worth; needed only where an offer has a least spend.
    """
    written_to = consent.channels(shop, keys)
    sees = consent.allowed(shop, keys, "profiling_sensitive")
    place = pd.Series(range(len(keys)), index=list(keys))
    met = mirror.interactions_of(shop, keys).to_pandas()
    if before is not None:
        met = met[(met["happened_at"] < before) & (met["known_at"] < before)]
    met = met.assign(row=met["customer_key"].map(place))
    used = interactions.redemptions(shop, before, keys=keys)
    used = used.assign(row=used["customer_key"].map(place))
    return Standing(
        channels=[written_to.get(key, []) for key in keys],
        sensitive=np.array([key in sees for key in keys], bool),
        basket=np.full(len(keys), np.nan) if baskets is None else baskets,
        received=met.loc[met["kind"].isin(["received", "sent"]), ["row", "campaign_id"]].dropna(),
        redeemed=used[["row", "offer_key"]],
        segments={},
    )


def offer(model: Model, occasion: Occasion, figures: pd.DataFrame, known: Standing) -> Offered:
    """The offers that may be made to each customer of the figures, ranked; `known` is aligned with them."""
    table = occasion.table
    verdict = eligibility.judge(table, known, now=occasion.now)
    rows, columns = np.nonzero(verdict == 0)
    listed = table.offers.take(columns).reset_index(drop=True)
    customers = figures["customer_key"].to_numpy(np.int64)[rows]
    cells = pd.DataFrame({"row": rows, "column": columns, "customer_key": customers, "offer_key": listed["offer_key"]})
    worth = _worth(model, occasion, figures, cells, listed)
    order = np.lexsort((listed["offer_key"], table.ends[columns], -worth["p"], rows))
    ranked = pd.concat([cells, worth], axis=1).take(order).reset_index(drop=True)
    return Offered(table, known, verdict, ranked)


def _worth(
    model: Model, occasion: Occasion, figures: pd.DataFrame, cells: pd.DataFrame, listed: pd.DataFrame
) -> pd.DataFrame:
    """p, expected_gain, source and reason of every offer that may be made."""
    received = listed["audience"] == "received"
    p = np.full(len(cells), float(np.asarray(model.typical(), np.float64).ravel()[0]))
    gain, source = np.full(len(cells), np.nan), np.full(len(cells), "popular", object)
    reason = np.where(received, words.OFFERS["received"], words.OFFERS["popular"]).astype(object)
    sure, pairs = _pairs(occasion, figures, cells)
    if len(sure):
        said = np.round(np.clip(np.asarray(model.score(pairs), np.float64).ravel(), 0.0, 1.0), scorer.DIGITS)
        sound = np.isfinite(said)
        rows, pairs, said = sure[sound], pairs[sound], said[sound]
        bought = list(zip(pairs["times"].tolist(), pairs["last_days"].tolist(), strict=True))
        p[rows] = said
        gain[rows] = said * _margin(pairs["price"].to_numpy(np.float64), listed.take(rows))
        source[rows] = ["again" if times > 0 else "new" for times, _ in bought]
        reason[rows] = [words.why_offer(times, last_days) for times, last_days in bought]
    gain = np.round(gain, money.EXPONENTS[occasion.currency])
    return pd.DataFrame({"p": p, "expected_gain": gain, "source": source, "reason": reason})


def _pairs(occasion: Occasion, figures: pd.DataFrame, cells: pd.DataFrame) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """The cells of customers with figures, and how well each offer suits each of them."""
    known = scorer.has_figures(figures)
    sure = np.flatnonzero(known[cells["row"].to_numpy(np.int64)])
    if not len(sure):
        return sure, cells.head(0)
    moments = _priced(figures["as_of"], occasion.prices)
    wanted = cells[["customer_key", "offer_key"]].take(sure).reset_index(drop=True)
    wanted["as_of"] = moments.take(cells["row"].to_numpy(np.int64)[sure]).reset_index(drop=True)
    asked = figures.assign(as_of=moments)[known].reset_index(drop=True)
    book = occasion.stall.book
    return sure, appeal.pairs(asked, wanted, book.covers, book.offers, occasion.prices)


def _priced(moments: pd.Series, prices: pd.DataFrame) -> pd.Series:
    """The moment of the prices, from which all offers run alike; a customer's own where that is earlier."""
    told = prices["event_timestamp"].max()
    return moments if pd.isna(told) else moments.mask(moments > told, told)


def _margin(price: Floats, listed: pd.DataFrame) -> Floats:
    """What a product brings that is bought with the offer: its price less what the offer gives away."""
    value, kind = listed["value"].to_numpy(np.float64), listed["value_kind"].to_numpy(object)
    off = np.select([kind == "amount", kind == "percent"], [value, price * value / 100], np.nan)
    return np.asarray(price - off, np.float64)


def wished(offered: Offered, *, channel: str | None = None, exclude: Collection[str] = ()) -> Codes:
    """The verdict, narrowed to what a question asks for."""
    return eligibility.wished(offered.verdict, offered.table, offered.standing, channel=channel, exclude=exclude)


def ranked(offered: Offered, verdict: Codes, n: int) -> pd.DataFrame:
    """The n best of what this verdict leaves to each customer, with `rank` from 1."""
    cells = offered.ranked[["row", "column"]].to_numpy(np.int64)
    kept = offered.ranked[verdict[cells[:, 0], cells[:, 1]] == 0]
    kept = kept.assign(rank=kept.groupby("row").cumcount() + 1)
    return kept[kept["rank"] <= n]


def dropped(offered: Offered, verdict: Codes, row: int, most: int | None) -> tuple[list[dict[str, str]], int]:
    """The offers that may not be made to one customer, nearest to it first, each with its reason; and how many.

    No more than `most` are named; all, where it is None.
    """
    codes, ids = verdict[row], offered.table.ids
    out = np.flatnonzero(codes)
    # What fails late was nearly made; of what has ended, the latest to end.
    order = out[np.lexsort((-offered.table.ends[out], -codes[out]))][:most]
    said = zip(order.tolist(), codes[order].tolist(), strict=True)
    return [{"offer_id": ids[column], "reason": eligibility.REASONS[code]} for column, code in said], len(out)
