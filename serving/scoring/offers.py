"""Offers: which offers a customer is eligible for, how likely each is redeemed, and why; online and at night.

Eligibility comes first; the model scores only eligible offers. A customer without features, or who does not allow
profiling, gets the offers that are made to everybody, soonest to end first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.marketing import eligibility, eligibility_inputs
from customers.marketing.eligibility import CustomerState, EligibilityCodes
from customers.marketing.offer_table import OfferTable
from customers.reports import recommendation_reasons
from customers.scores import score_details
from customers.scores.score_details import ScoreRow
from customers.shop import money
from features.offers import affinity
from models.base import Model
from serving.offers import complementary_offers, offer_inventory
from serving.offers.offer_inventory import OfferInventory
from serving.scoring import fallback
from serving.scoring.fallback import Flags, Floats, Prediction
from serving.scoring.inputs import ScoringInputs

#: From this many offers on, one of them may be for a complement of a new purchase.
MIN_LENGTH_FOR_COMPLEMENT = 3
#: What an expected gain counts, by whether the products' cost and the discount are known.
GAIN_BASES = {
    (True, True): "price less cost and what the offer gives away",
    (True, False): "price less cost; what the offer gives away is not known and not taken off",
    (False, True): "price less what the offer gives away; the cost is not known and not taken off",
    (False, False): "price; neither the cost nor what the offer gives away is known, and neither is taken off",
}


@dataclass(frozen=True)
class RankedOffers:
    """Offers of the customers of a frame: the table, an eligibility code per customer and offer, and the ranking.

    `ranking` has a row per eligible offer, each customer's likeliest first; columns row, column, customer_key,
    offer_key, p, expected_gain (NaN where unknown), gain_basis (what the gain counts, None likewise), source, reason,
    evidence_key, days. The source is again, new, popular, or related: the offer complements a product bought for the
    first time, which is product_key `evidence_key`, bought `days` ago (NaN elsewhere; see
    `score_details.encode_offer_reasons`).
    """

    table: OfferTable
    customer_state: CustomerState
    eligibility_codes: EligibilityCodes
    ranking: pd.DataFrame


@dataclass(frozen=True)
class OfferPrediction(Prediction):
    """Offers of some customers; those who do not allow profiling are among them, without features."""

    ranked_offers: RankedOffers

    def iter_rows(self) -> Iterator[ScoreRow]:
        """The rows to store, one per customer of the frame."""
        return score_details.encode_offers(
            self.frame["customer_key"].tolist(), self.ranked_offers.ranking, fallback=self.fallback
        )


def predict_offers(inputs: ScoringInputs) -> OfferPrediction:
    """Offers of the customers of the inputs and of its unprofiled customers, who come after them in the frame."""
    context = load_context(inputs)
    frame = _add_unprofiled(inputs.load_features("offers"), inputs.unprofiled_keys)
    keys = frame["customer_key"].tolist()
    has_min_spend = context.inventory.catalogue.offers["min_spend"].notna().any()
    customer_state = eligibility_inputs.load_customer_state(
        inputs.shop, keys, inputs.load_basket_values(keys) if has_min_spend else None, before=inputs.recorded_before
    )
    ranked_offers = score_offers(inputs.get_model("offers"), context, frame, customer_state)
    is_scored = fallback.has_features(frame)
    return OfferPrediction(frame, is_scored, ~is_scored | inputs.uses_fallback("offers"), ranked_offers)


def _add_unprofiled(frame: pd.DataFrame, unprofiled_keys: Sequence[int]) -> pd.DataFrame:
    """Copies of the last row, that of the unknown customer, put before it under these keys."""
    if not unprofiled_keys:
        return frame
    keys = frame["customer_key"].tolist()
    unknown_row = len(frame) - 1
    frame = frame.take([*range(unknown_row), *[unknown_row] * len(unprofiled_keys), unknown_row])
    return frame.reset_index(drop=True).assign(
        customer_key=np.array([*keys[:-1], *unprofiled_keys, keys[-1]], np.int64)
    )


@dataclass(frozen=True)
class OfferContext:
    """Offers, their table, product prices and the time at which they hold.

    complements: pairs of products that are bought together, as `complementary_offers.load_complements` gives them; None
    for no complements.
    """

    inventory: OfferInventory
    table: OfferTable
    prices: pd.DataFrame
    now: datetime
    currency: str
    complements: pd.DataFrame | None = None


def load_context(inputs: ScoringInputs) -> OfferContext:
    """The offers of the inputs, with what was redeemed of them, prices and complements."""
    folder = inputs.store.folder
    return OfferContext(
        inputs.inventory,
        eligibility_inputs.with_budgets_as_of(inputs.shop, inputs.inventory.offer_table, inputs.recorded_before),
        offer_inventory.load_prices(folder),
        inputs.now,
        inputs.shop.currency,
        complementary_offers.load_complements(folder),
    )


def score_offers(
    model: Model, context: OfferContext, features: pd.DataFrame, customer_state: CustomerState
) -> RankedOffers:
    """Eligible offers per customer, ranked. features: a row per customer; customer_state: of the same customers."""
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
    """Columns p, expected_gain, gain_basis, source, reason, evidence_key and days of every eligible offer."""
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
    return pd.DataFrame(columns | {"evidence_key": complement_values[:, 0], "days": complement_values[:, 1]})


def _find_complements(
    context: OfferContext, features: pd.DataFrame, cells: pd.DataFrame, times: Floats, is_consenting: Flags
) -> NDArray[np.float64]:
    """The new purchase that each cell's offer complements: (n_cells, 2), evidence_key and days; NaN for none.

    None where the customer has bought the offer's products before: those purchases are the better reason. A sensitive
    product is a reason only in consenting rows.
    """
    if context.complements is None or not len(context.complements):
        return np.full((len(cells), 2), np.nan)
    covers = context.inventory.catalogue.covered_products
    covers = covers[covers["offer_key"].isin(cells["offer_key"].unique())]
    complementary = complementary_offers.find_complementary_offers(
        features, covers, context.complements, hidden=context.inventory.sensitive_products, is_consenting=is_consenting
    )
    matches = cells[["row", "offer_key"]].merge(complementary, on=["row", "offer_key"], how="left")
    values = matches[["evidence_key", "days"]].to_numpy(np.float64)
    return np.where(times[:, None] > 0, np.nan, values)


def _feature_pairs(
    context: OfferContext, features: pd.DataFrame, cells: pd.DataFrame
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Row numbers of the cells of customers with features, and the affinity features of those cells."""
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
    """The time of the prices, the same for all offers; the customer's own as_of where that is earlier."""
    latest_at = prices["event_timestamp"].max()
    return as_of if pd.isna(latest_at) else as_of.mask(as_of > latest_at, latest_at)


def _margin_after_discount(
    price: Floats, listed: pd.DataFrame, margins: pd.Series
) -> tuple[Floats, NDArray[np.object_]]:
    """Margin on a product bought with each offer, and its gain basis; NaN and None where unknown."""
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
    """Eligibility codes (n_customers, n_offers), with those of offers that a request excludes set as well."""
    return eligibility.restrict_to_request(
        ranked_offers.eligibility_codes,
        ranked_offers.table,
        ranked_offers.customer_state,
        channel=channel,
        exclude=exclude,
    )


def refuse_to_everybody(table: OfferTable, now: datetime) -> EligibilityCodes:
    """The code of each offer, (n_offers,), that is refused to everybody; 0 where it depends on the customer."""
    campaigns = table.offers["campaign_id"].dropna().unique()
    segments = table.offers["segment"].dropna().unique()
    anyone = CustomerState(
        channels=[list(table.channel_bits)],
        allows_sensitive=np.ones(1, bool),
        basket_value=np.full(1, np.nan),
        received_campaigns=pd.DataFrame({"row": np.zeros(len(campaigns), np.int64), "campaign_id": campaigns}),
        redeemed_offers=pd.DataFrame({"row": np.empty(0, np.int64), "offer_key": np.empty(0, np.int64)}),
        segments={name: [0] for name in segments},
    )
    return eligibility.evaluate_eligibility(table, anyone, now=now)[0]


def judge_customers(table: OfferTable, customer_state: CustomerState, now: datetime) -> EligibilityCodes:
    """The codes, (n_customers, n_offers), by the rules about customers alone: 0 or the first reason against the pair.

    Time, stock and budget, for which offers are refused to everybody, are left out.
    """
    allowed = np.zeros(len(table.offers), bool)
    always = table.offers.assign(starts_at=now, ends_at=now + timedelta(days=1))
    lasting = replace(table, offers=always, has_no_products=allowed, is_sold_out=allowed, is_budget_spent=allowed)
    return eligibility.evaluate_eligibility(lasting, customer_state, now=now)


def top_offers(ranked_offers: RankedOffers, eligibility_codes: EligibilityCodes, n: int) -> pd.DataFrame:
    """The n likeliest eligible offers per customer, columns as the ranking and rank from 1.

    Where n >= MIN_LENGTH_FOR_COMPLEMENT and none of them complements a new purchase, the likeliest that does is last.
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
    """Ineligible offers of one customer, nearest to eligible first, each with its reason; and their number.

    eligibility_codes: (n_customers, n_offers). At most `limit` are listed; all where it is None.
    """
    codes, ids = eligibility_codes[row], ranked_offers.table.offer_ids
    ineligible = np.flatnonzero(codes)
    # An offer that fails a late rule is nearer to eligible; of those that have ended, the latest to end.
    order = ineligible[np.lexsort((-ranked_offers.table.end_times[ineligible], -codes[ineligible]))][:limit]
    entries = zip(order.tolist(), codes[order].tolist(), strict=True)
    return [{"offer_id": ids[column], "reason": eligibility.REASONS[code]} for column, code in entries], len(ineligible)


def explain_none(codes: EligibilityCodes) -> str | None:
    """Why one customer has no eligible offer, with a count per reason; None where there is one.

    codes: those of the customer, (n_offers,).
    """
    if not len(codes):
        return recommendation_reasons.NO_OFFERS
    if (codes == 0).any():
        return None
    counts = np.bincount(codes)
    reasons = np.flatnonzero(counts)
    counts = counts[reasons]
    order = np.lexsort((reasons, -counts))
    parts = (f"{eligibility.REASONS[reasons[index]]} ({counts[index]})" for index in order.tolist())
    return f"none of the {len(codes)} offers may be made: {'; '.join(parts)}"
