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

from customers import clock, consent, contacts, interactions, money
from customers.shop import Shop
from features import appeal
from models.base import Model
from serving import eligibility, related, scorer, words
from serving.eligibility import Codes, Flags, Standing, Table
from serving.scorer import Floats
from serving.stall import Stall


@dataclass(frozen=True)
class Occasion:
    """What there is to offer, as it lies on the table, what it went for, and when it is.

    `companions` are products that go with each other, as `related.companions` gives them; None for none.
    """

    stall: Stall
    table: Table
    prices: pd.DataFrame
    now: datetime
    currency: str
    companions: pd.DataFrame | None = None


@dataclass(frozen=True)
class Offered:
    """What is offered to the customers of a frame: the table, the verdict on every cell of it, and the ranking.

    `ranked` has a row an offer that may be made, each customer's likeliest first: row, column, customer_key,
    offer_key, p, expected_gain (NaN where unknown), gain_basis (what the gain counts, None likewise), source, reason,
    because, days. The source is again, new, popular, or related for what goes with something just bought for the
    first time: with the product `because`, bought `days` ago (NaN elsewhere), which `reasons_kept` keeps for its words.
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
    met = contacts.of(shop, keys, before=before)
    met = met.assign(row=met["customer_key"].map(place))
    tired = contacts.enough(shop, met, before or clock.now(shop))
    used = interactions.redemptions(shop, before, keys=keys)
    used = used.assign(row=used["customer_key"].map(place))
    return Standing(
        channels=[written_to.get(key, []) for key in keys],
        sensitive=np.array([key in sees for key in keys], bool),
        basket=np.full(len(keys), np.nan) if baskets is None else baskets,
        received=met[["row", "campaign_id"]].dropna(),
        redeemed=used[["row", "offer_key"]],
        segments={},
        contacted=np.array([key in tired for key in keys], bool),
    )


def offer(model: Model, occasion: Occasion, figures: pd.DataFrame, known: Standing) -> Offered:
    """The offers that may be made to each customer of the figures, ranked; `known` is aligned with them."""
    table = occasion.table
    verdict = eligibility.judge(table, known, now=occasion.now)
    rows, columns = np.nonzero(verdict == 0)
    listed = table.offers.take(columns).reset_index(drop=True)
    customers = figures["customer_key"].to_numpy(np.int64)[rows]
    cells = pd.DataFrame({"row": rows, "column": columns, "customer_key": customers, "offer_key": listed["offer_key"]})
    worth = _worth(model, occasion, figures, cells, listed, known.sensitive)
    order = np.lexsort((listed["offer_key"], table.ends[columns], -worth["p"], rows))
    ranked = pd.concat([cells, worth], axis=1).take(order).reset_index(drop=True)
    return Offered(table, known, verdict, ranked)


def _worth(
    model: Model, occasion: Occasion, figures: pd.DataFrame, cells: pd.DataFrame, listed: pd.DataFrame, sees: Flags
) -> pd.DataFrame:
    """p, expected_gain, gain_basis, source, reason, because and days of every offer that may be made."""
    received = listed["audience"] == "received"
    p = np.full(len(cells), float(np.asarray(model.typical(), np.float64).ravel()[0]))
    gain, basis = np.full(len(cells), np.nan), np.full(len(cells), None, object)
    source = np.full(len(cells), "popular", object)
    reason = np.where(received, words.OFFERS["received"], words.OFFERS["popular"]).astype(object)
    goes = np.full((len(cells), 2), np.nan)
    sure, pairs = _pairs(occasion, figures, cells)
    if len(sure):
        said = np.round(np.clip(np.asarray(model.score(pairs), np.float64).ravel(), 0.0, 1.0), scorer.DIGITS)
        sound = np.isfinite(said)
        rows, pairs, said = sure[sound], pairs[sound], said[sound]
        times, last_days = (pairs[name].to_numpy(np.float64) for name in ("times", "last_days"))
        goes[rows] = _related(occasion, figures, cells.take(rows), times, sees)
        p[rows] = said
        left, basis[rows] = _earned(pairs["price"].to_numpy(np.float64), listed.take(rows), occasion.stall.margins)
        gain[rows] = said * left
        source[rows] = np.select([times > 0, ~np.isnan(goes[rows, 0])], ["again", "related"], "new")
        reason[rows] = [words.why_offer(*each) for each in zip(times.tolist(), last_days.tolist(), strict=True)]
    gain = np.round(gain, money.EXPONENTS[occasion.currency])
    told = {"p": p, "expected_gain": gain, "gain_basis": basis, "source": source, "reason": reason}
    return pd.DataFrame(told | {"because": goes[:, 0], "days": goes[:, 1]})


def _related(
    occasion: Occasion, figures: pd.DataFrame, cells: pd.DataFrame, times: Floats, sees: Flags
) -> NDArray[np.float64]:
    """What each cell's offer goes with, of what its customer has just bought: because, days; NaN for nothing.

    Of an offer on products that they buy anyway their own purchases say more. What is sensitive is no reason but in
    the rows that `sees` says.
    """
    if occasion.companions is None or not len(occasion.companions):
        return np.full((len(cells), 2), np.nan)
    covers = occasion.stall.book.covers
    covers = covers[covers["offer_key"].isin(cells["offer_key"].unique())]
    goes = related.offers(figures, covers, occasion.companions, hidden=occasion.stall.sensitive, sees=sees)
    found = cells[["row", "offer_key"]].merge(goes, on=["row", "offer_key"], how="left")
    told = found[["because", "days"]].to_numpy(np.float64)
    return np.where(times[:, None] > 0, np.nan, told)


def reasons_kept(ranked: pd.DataFrame) -> list[str | list[int]]:
    """What is kept of why each offer is made: words, or the product that it goes with and how long ago that was bought.

    A product is named by `reasons.of_offers` when it is read: it may become sensitive, and a consent may go.
    """
    told = zip(ranked["reason"].tolist(), ranked["because"].tolist(), ranked["days"].tolist(), strict=True)
    return [why if key != key else [int(key), int(days)] for why, key, days in told]


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
    return sure, appeal.pairs(asked, wanted, book.covers, book.offers, occasion.prices, occasion.stall.sorts)


def _priced(moments: pd.Series, prices: pd.DataFrame) -> pd.Series:
    """The moment of the prices, from which all offers run alike; a customer's own where that is earlier."""
    told = prices["event_timestamp"].max()
    return moments if pd.isna(told) else moments.mask(moments > told, told)


#: Of so many offers one may go to what goes with a new purchase.
ROOM_FOR_RELATED = 3
#: What a gain counts, by whether the cost of the products and what the offer gives away are known.
BASIS = {
    (True, True): "price less cost and what the offer gives away",
    (True, False): "price less cost; what the offer gives away is not known and not taken off",
    (False, True): "price less what the offer gives away; the cost is not known and not taken off",
    (False, False): "price; neither the cost nor what the offer gives away is known, and neither is taken off",
}


def _earned(price: Floats, listed: pd.DataFrame, margins: pd.Series) -> tuple[Floats, NDArray[np.object_]]:
    """What is left of the price of a product bought with the offer, and what was taken off; NaN and None if unknown."""
    value, kind = listed["value"].to_numpy(np.float64), listed["value_kind"].to_numpy(object)
    off = np.select([kind == "amount", kind == "percent"], [value, price * value / 100], np.nan)
    margin = listed["offer_key"].map(margins).to_numpy(np.float64)
    left = price * np.where(np.isnan(margin), 1.0, margin) - np.where(np.isnan(off), 0.0, off)
    counted = zip((~np.isnan(margin)).tolist(), (~np.isnan(off)).tolist(), np.isnan(left).tolist(), strict=True)
    return left, np.array([None if lost else BASIS[cost, given] for cost, given, lost in counted], object)


def wished(offered: Offered, *, channel: str | None = None, exclude: Collection[str] = ()) -> Codes:
    """The verdict, narrowed to what a question asks for."""
    return eligibility.wished(offered.verdict, offered.table, offered.standing, channel=channel, exclude=exclude)


def ranked(offered: Offered, verdict: Codes, n: int) -> pd.DataFrame:
    """The n likeliest of what this verdict leaves to each customer, with `rank` from 1.

    Where n leaves room for it and none of them goes with what was just bought, the likeliest that does comes last.
    """
    cells = offered.ranked[["row", "column"]].to_numpy(np.int64)
    kept = offered.ranked[verdict[cells[:, 0], cells[:, 1]] == 0]
    place = kept.groupby("row").cumcount() + 1
    first = kept["source"].eq("related") & ~kept["source"].eq("related").groupby(kept["row"]).cumsum().gt(1)
    late = first & (place > n) if n >= ROOM_FOR_RELATED else first & False
    given_up = (place == n) & kept["row"].isin(kept.loc[late, "row"])
    return kept.assign(rank=place.where(~late, n))[(place <= n) & ~given_up | late]


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


def why_nothing(offered: Offered, verdict: Codes, row: int) -> str | None:
    """Why no offer is left for one customer, with how many fall to each reason; None where there is one."""
    codes = verdict[row]
    if not len(codes):
        return words.NO_OFFERS
    if (codes == 0).any():
        return None
    reasons, counts = np.unique(codes, return_counts=True)
    order = np.lexsort((reasons, -counts))
    told = (f"{eligibility.REASONS[reasons[place]]} ({counts[place]})" for place in order.tolist())
    return f"none of the {len(codes)} offers may be made: {'; '.join(told)}"
