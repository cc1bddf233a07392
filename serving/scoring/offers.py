"""Offering: which offers may be made to each customer, how likely each is to be redeemed, and why it is made.

What may be made comes first; only that is asked of a model. Who has no figures, or allows nobody to look at them,
gets what is made to everybody, soonest to end first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.marketing import eligibility, eligibility_inputs
from customers.marketing.eligibility import CustomerState, EligibilityCodes, Flags, OfferTable
from customers.reports import recommendation_reasons
from customers.scores import score_details
from customers.scores.score_details import ScoreRow
from customers.shop import money
from features.offers import affinity
from models.base import Model
from models.registry.bundle import Champion
from serving.offers import complementary_offers, offer_inventory
from serving.offers.offer_inventory import OfferInventory
from serving.runtime import UNKNOWN_CUSTOMER, FeatureCache, ServerRuntime
from serving.scoring import fallback
from serving.scoring import fallback as fallback_scoring
from serving.scoring.fallback import Floats


@dataclass(frozen=True)
class OfferContext:
    """What there is to offer, as it lies on the table, what it went for, and when it is.

    `companions` are products that go with each other, as `related.companions` gives them; None for none.
    """

    inventory: OfferInventory
    table: OfferTable
    prices: pd.DataFrame
    now: datetime
    currency: str
    complements: pd.DataFrame | None = None


@dataclass(frozen=True)
class RankedOffers:
    """What is offered to the customers of a frame: the table, the verdict on every cell of it, and the ranking.

    `ranked` has a row an offer that may be made, each customer's likeliest first: row, column, customer_key,
    offer_key, p, expected_gain (NaN where unknown), gain_basis (what the gain counts, None likewise), source, reason,
    because, days. The source is again, new, popular, or related for what goes with something just bought for the
    first time: with the product `because`, bought `days` ago (NaN elsewhere), which `reasons_kept` keeps for its words.
    """

    table: OfferTable
    customer_state: CustomerState
    eligibility_codes: EligibilityCodes
    ranking: pd.DataFrame


def score_offers(
    model: Model, context: OfferContext, features: pd.DataFrame, customer_state: CustomerState
) -> RankedOffers:
    """The offers that may be made to each customer of the figures, ranked; `known` is aligned with them."""
    table = context.table
    eligibility_codes = eligibility.evaluate_eligibility(table, customer_state, now=context.now)
    rows, columns = np.nonzero(eligibility_codes == 0)
    listed = table.offers.take(columns).reset_index(drop=True)
    customers = features["customer_key"].to_numpy(np.int64)[rows]
    cells = pd.DataFrame({"row": rows, "column": columns, "customer_key": customers, "offer_key": listed["offer_key"]})
    cell_scores = _score_cells(model, context, features, cells, listed, customer_state.allows_sensitive)
    order = np.lexsort((listed["offer_key"], table.end_times[columns], -cell_scores["p"], rows))
    ranking = pd.concat([cells, cell_scores], axis=1).take(order).reset_index(drop=True)
    return RankedOffers(table, customer_state, eligibility_codes, ranking)


def _score_cells(
    model: Model,
    context: OfferContext,
    features: pd.DataFrame,
    cells: pd.DataFrame,
    listed: pd.DataFrame,
    is_consenting: Flags,
) -> pd.DataFrame:
    """p, expected_gain, gain_basis, source, reason, because and days of every offer that may be made."""
    received = listed["audience"] == "received"
    p = np.full(len(cells), float(np.asarray(model.population_average(), np.float64).ravel()[0]))
    gain, basis = np.full(len(cells), np.nan), np.full(len(cells), None, object)
    source = np.full(len(cells), "popular", object)
    reason = np.where(
        received, recommendation_reasons.OFFER_REASONS["received"], recommendation_reasons.OFFER_REASONS["popular"]
    ).astype(object)
    complement_values = np.full((len(cells), 2), np.nan)
    scorable_rows, pairs = _feature_pairs(context, features, cells)
    if len(scorable_rows):
        probabilities = np.round(
            np.clip(np.asarray(model.score(pairs), np.float64).ravel(), 0.0, 1.0), fallback.PROBABILITY_DIGITS
        )
        is_finite = np.isfinite(probabilities)
        rows, pairs, probabilities = scorable_rows[is_finite], pairs[is_finite], probabilities[is_finite]
        times, last_days = (pairs[name].to_numpy(np.float64) for name in ("times", "last_days"))
        complement_values[rows] = _find_complements(context, features, cells.take(rows), times, is_consenting)
        p[rows] = probabilities
        margin, basis[rows] = _margin_after_discount(
            pairs["price"].to_numpy(np.float64), listed.take(rows), context.inventory.margin_by_offer
        )
        gain[rows] = probabilities * margin
        source[rows] = np.select([times > 0, ~np.isnan(complement_values[rows, 0])], ["again", "related"], "new")
        reason[rows] = [
            recommendation_reasons.offer_reason(*each) for each in zip(times.tolist(), last_days.tolist(), strict=True)
        ]
    gain = np.round(gain, money.EXPONENTS[context.currency])
    columns = {"p": p, "expected_gain": gain, "gain_basis": basis, "source": source, "reason": reason}
    return pd.DataFrame(columns | {"because": complement_values[:, 0], "days": complement_values[:, 1]})


def _find_complements(
    context: OfferContext, features: pd.DataFrame, cells: pd.DataFrame, times: Floats, is_consenting: Flags
) -> NDArray[np.float64]:
    """What each cell's offer goes with, of what its customer has just bought: because, days; NaN for nothing.

    Of an offer on products that they buy anyway their own purchases say more. What is sensitive is no reason but in
    the rows that `sees` says.
    """
    if context.complements is None or not len(context.complements):
        return np.full((len(cells), 2), np.nan)
    covers = context.inventory.catalogue.covered_products
    covers = covers[covers["offer_key"].isin(cells["offer_key"].unique())]
    complementary = complementary_offers.find_complementary_offers(
        features, covers, context.complements, hidden=context.inventory.sensitive_products, is_consenting=is_consenting
    )
    matches = cells[["row", "offer_key"]].merge(complementary, on=["row", "offer_key"], how="left")
    values = matches[["because", "days"]].to_numpy(np.float64)
    return np.where(times[:, None] > 0, np.nan, values)


def encode_reasons(ranked: pd.DataFrame) -> list[str | list[int]]:
    """What is kept of why each offer is made: words, or the product that it goes with and how long ago that was bought.

    A product is named by `reasons.of_offers` when it is read: it may become sensitive, and a consent may go.
    """
    entries = zip(ranked["reason"].tolist(), ranked["because"].tolist(), ranked["days"].tolist(), strict=True)
    return [text if key != key else [int(key), int(days)] for text, key, days in entries]


def _feature_pairs(
    context: OfferContext, features: pd.DataFrame, cells: pd.DataFrame
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """The cells of customers with figures, and how well each offer suits each of them."""
    has_row = fallback.has_features(features)
    scorable_rows = np.flatnonzero(has_row[cells["row"].to_numpy(np.int64)])
    if not len(scorable_rows):
        return scorable_rows, cells.head(0)
    price_as_of = _price_as_of(features["as_of"], context.prices)
    requests = cells[["customer_key", "offer_key"]].take(scorable_rows).reset_index(drop=True)
    requests["as_of"] = price_as_of.take(cells["row"].to_numpy(np.int64)[scorable_rows]).reset_index(drop=True)
    priced_features = features.assign(as_of=price_as_of)[has_row].reset_index(drop=True)
    catalogue = context.inventory.catalogue
    return scorable_rows, affinity.build_affinity_features(
        priced_features,
        requests,
        catalogue.covered_products,
        catalogue.offers,
        context.prices,
        context.inventory.product_categories,
    )


def _price_as_of(as_of: pd.Series, prices: pd.DataFrame) -> pd.Series:
    """The moment of the prices, from which all offers run alike; a customer's own where that is earlier."""
    latest_at = prices["event_timestamp"].max()
    return as_of if pd.isna(latest_at) else as_of.mask(as_of > latest_at, latest_at)


#: Of so many offers one may go to what goes with a new purchase.
MIN_LENGTH_FOR_COMPLEMENT = 3
#: What a gain counts, by whether the cost of the products and what the offer gives away are known.
GAIN_BASES = {
    (True, True): "price less cost and what the offer gives away",
    (True, False): "price less cost; what the offer gives away is not known and not taken off",
    (False, True): "price less what the offer gives away; the cost is not known and not taken off",
    (False, False): "price; neither the cost nor what the offer gives away is known, and neither is taken off",
}


def _margin_after_discount(
    price: Floats, listed: pd.DataFrame, margins: pd.Series
) -> tuple[Floats, NDArray[np.object_]]:
    """What is left of the price of a product bought with the offer, and what was taken off; NaN and None if unknown."""
    offer_value, kind = listed["value"].to_numpy(np.float64), listed["value_kind"].to_numpy(object)
    discount = np.select([kind == "amount", kind == "percent"], [offer_value, price * offer_value / 100], np.nan)
    margin = listed["offer_key"].map(margins).to_numpy(np.float64)
    remaining = price * np.where(np.isnan(margin), 1.0, margin) - np.where(np.isnan(discount), 0.0, discount)
    basis_flags = zip(
        (~np.isnan(margin)).tolist(), (~np.isnan(discount)).tolist(), np.isnan(remaining).tolist(), strict=True
    )
    return remaining, np.array(
        [
            None if is_unknown else GAIN_BASES[has_cost, has_discount]
            for has_cost, has_discount, is_unknown in basis_flags
        ],
        object,
    )


def restrict_to_request(
    ranked_offers: RankedOffers, *, channel: str | None = None, exclude: Collection[str] = ()
) -> EligibilityCodes:
    """The verdict, narrowed to what a question asks for."""
    return eligibility.restrict_to_request(
        ranked_offers.eligibility_codes,
        ranked_offers.table,
        ranked_offers.customer_state,
        channel=channel,
        exclude=exclude,
    )


def top_offers(ranked_offers: RankedOffers, eligibility_codes: EligibilityCodes, n: int) -> pd.DataFrame:
    """The n likeliest of what this verdict leaves to each customer, with `rank` from 1.

    Where n leaves room for it and none of them goes with what was just bought, the likeliest that does comes last.
    """
    cells = ranked_offers.ranking[["row", "column"]].to_numpy(np.int64)
    eligible = ranked_offers.ranking[eligibility_codes[cells[:, 0], cells[:, 1]] == 0]
    position = eligible.groupby("row").cumcount() + 1
    is_first_complement = eligible["source"].eq("related") & ~eligible["source"].eq("related").groupby(
        eligible["row"]
    ).cumsum().gt(1)
    is_added = is_first_complement & (position > n) if n >= MIN_LENGTH_FOR_COMPLEMENT else is_first_complement & False
    is_replaced = (position == n) & eligible["row"].isin(eligible.loc[is_added, "row"])
    return eligible.assign(rank=position.where(~is_added, n))[(position <= n) & ~is_replaced | is_added]


def list_ineligible(
    ranked_offers: RankedOffers, eligibility_codes: EligibilityCodes, row: int, limit: int | None
) -> tuple[list[dict[str, str]], int]:
    """The offers that may not be made to one customer, nearest to it first, each with its reason; and how many.

    No more than `most` are named; all, where it is None.
    """
    codes, ids = eligibility_codes[row], ranked_offers.table.offer_ids
    ineligible = np.flatnonzero(codes)
    # What fails late was nearly made; of what has ended, the latest to end.
    order = ineligible[np.lexsort((-ranked_offers.table.end_times[ineligible], -codes[ineligible]))][:limit]
    entries = zip(order.tolist(), codes[order].tolist(), strict=True)
    return [{"offer_id": ids[column], "reason": eligibility.REASONS[code]} for column, code in entries], len(ineligible)


def explain_none(ranked_offers: RankedOffers, eligibility_codes: EligibilityCodes, row: int) -> str | None:
    """Why no offer is left for one customer, with how many fall to each reason; None where there is one."""
    codes = eligibility_codes[row]
    if not len(codes):
        return recommendation_reasons.NO_OFFERS
    if (codes == 0).any():
        return None
    reasons, counts = np.unique(codes, return_counts=True)
    order = np.lexsort((reasons, -counts))
    parts = (f"{eligibility.REASONS[reasons[index]]} ({counts[index]})" for index in order.tolist())
    return f"none of the {len(codes)} offers may be made: {'; '.join(parts)}"


def encode_offers(frame: pd.DataFrame, ranked: pd.DataFrame, is_fallback: fallback.Flags) -> Iterator[ScoreRow]:
    """A row a customer: the chance of the best offer, None without any, and {"items", "fallback"}.

    An item is [offer_key, chance, expected gain or null, reason], best first; `ranked` has a row each in that order.
    A reason is words, or [product_key, days] for `customers.reports.recommendation_reasons` to put into words.
    """
    columns = ("customer_key", "offer_key", "p", "expected_gain")
    items_by_key: dict[int, list[list[Any]]] = {}
    encoded_reasons = encode_reasons(ranked)
    for key, offer, p, gain, reason in zip(*(ranked[name].tolist() for name in columns), encoded_reasons, strict=True):
        items_by_key.setdefault(key, []).append([offer, p, None if gain != gain else gain, reason])
    for key, flag in zip(frame["customer_key"].tolist(), is_fallback.tolist(), strict=True):
        items = items_by_key.get(key, [])[: score_details.MAX_STORED_ITEMS]
        yield key, items[0][1] if items else None, score_details.dump_detail({"items": items, "fallback": flag})


@dataclass(frozen=True)
class OfferPrediction:
    """What is offered to some customers; those of whom nothing may be foretold stand among them."""

    frame: pd.DataFrame
    ranked_offers: RankedOffers
    fallback: fallback_scoring.Flags


def predict_offers(
    runtime: ServerRuntime,
    champion: Champion,
    keys: Sequence[int],
    others: Sequence[int] = (),
    *,
    feature_cache: FeatureCache | None = None,
) -> OfferPrediction:
    """What may be offered to each of `keys`, then to `others`, of whom nothing is foretold, and last to nobody."""
    frame, inventory = runtime.load_features(champion, keys, feature_cache), runtime.get_inventory()
    profiled = frame[fallback_scoring.has_features(frame)]
    unknown_row = len(frame) - 1
    all_keys = [*keys, *others, UNKNOWN_CUSTOMER]
    frame = frame.take([*range(unknown_row), *[unknown_row] * len(others), unknown_row]).reset_index(drop=True)
    frame["customer_key"] = np.array(all_keys, np.int64)
    baskets = None
    if inventory.catalogue.offers["min_spend"].notna().any():
        basket_values = runtime.load_basket_values(keys)
        baskets = np.concatenate([basket_values, np.full(len(all_keys) - len(keys), np.nan)])
    context = OfferContext(
        inventory,
        offer_inventory.load_offer_table(runtime.shop, inventory),
        offer_inventory.load_prices(runtime.features.folder),
        runtime.now(),
        runtime.shop.currency,
        complementary_offers.load_complements(runtime.features.folder),
    )
    customer_state = eligibility_inputs.load_customer_state(runtime.shop, all_keys, baskets)
    ranked_offers = score_offers(champion.model, context, frame, customer_state)
    is_fallback = ~fallback_scoring.has_features(frame) | fallback_scoring.uses_fallback(champion)
    runtime.store_scores(champion, profiled, encode_offers(frame, ranked_offers.ranking, is_fallback))
    return OfferPrediction(frame, ranked_offers, is_fallback)
