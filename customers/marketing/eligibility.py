"""Eligibility: which offers may be made to a customer at all, and of every other the first reason why not.

What is true of an offer for everybody is looked at first, and what a customer has not allowed before anything
that they did: a reason must not tell of purchases that nobody was allowed to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.privacy.consents import CONSENT_FREE_CHANNELS

Flags = NDArray[np.bool_]
EligibilityCodes = NDArray[np.int8]

#: A customer who would have to spend so many times their usual basket is not helped by an offer.
MAX_SPEND_RATIO = 2.0

#: What each code stands for, in words; 0 is an offer that may be made.
REASONS = (
    "",
    "it has ended",
    "it has not begun yet",
    "its budget is spent",
    "nothing that it is for is sold here",
    "all that it is for is sold out",
    "it is for sensitive products, which this customer has not allowed to be looked at",
    "the customer has not allowed any of its channels",
    "it is only for those who received its campaign",
    "it is for a segment that the shop does not know",
    "the customer is not in its segment",
    "its minimum spend is more than twice their usual basket",
    "the customer has redeemed it already",
    "the customer has been contacted as often as the shop allows",
    "it is not made on this channel",
    "the customer has not allowed this channel",
    "it was left out of the question",
)
_OVER_CONTACT_CAP, _NOT_ON_CHANNEL, _CHANNEL_NOT_ALLOWED, _EXCLUDED = range(13, 17)


@dataclass(frozen=True)
class OfferTable:
    """The offers as they lie on the table, a row each, and what holds for each of them whoever asks.

    `offers` has the columns of the book, and what each is `called` outside; `empty`, `sold_out` and `spent` are
    flags in its order. Laid out once, it serves many questions: what is worked out of it is kept.
    """

    offers: pd.DataFrame
    has_no_products: Flags
    is_sold_out: Flags
    is_budget_spent: Flags

    @cached_property
    def offered_channels(self) -> tuple[list[str], Flags]:
        """The names of channels, and on which of them each offer is made."""
        channels = self.offers["channels"].tolist()
        names = sorted({name for offer_channels in channels for name in offer_channels})
        on_channel = np.array([[name in offer_channels for name in names] for offer_channels in channels], bool)
        return names, on_channel.reshape(len(channels), len(names))

    @cached_property
    def campaign_index(self) -> tuple[pd.Index, NDArray[np.int64]]:
        """The campaigns there are, and the place of each offer's among them; -1 for none."""
        names = pd.Index(self.offers["campaign_id"].dropna().unique())
        return names, np.asarray(names.get_indexer(pd.Index(self.offers["campaign_id"])), np.int64)

    @cached_property
    def offer_ids(self) -> list[str]:
        """What each is called."""
        return self.offers["called"].tolist()

    @cached_property
    def end_times(self) -> NDArray[np.int64]:
        """When each ends, as a number that rises with time."""
        return self.offers["ends_at"].to_numpy(np.int64)


@dataclass(frozen=True)
class CustomerState:
    """What is known of the customers who ask, a row each.

    `channels`: those on which each may be contacted. `sensitive`: whether their sensitive purchases may be looked
    at. `basket`: the value of their usual basket, NaN where unknown. `received` and `redeemed`: pairs of rows and
    campaign ids, and of rows and offer keys: two sources may call different offers alike. `segments`: the rows in
    each segment that the shop knows. `contacted`: who was written to, called or sent post so often already that the
    shop leaves them alone for now; what they come and see for themselves may still be shown.
    """

    channels: Sequence[Collection[str]]
    allows_sensitive: Flags
    basket_value: NDArray[np.float64]
    received_campaigns: pd.DataFrame
    redeemed_offers: pd.DataFrame
    segments: Mapping[str, Collection[int]]
    is_over_contact_cap: Flags | None = None

    def __len__(self) -> int:
        return len(self.channels)


def build_offer_table(offer_rows: pd.DataFrame, covers: pd.DataFrame, *, sold_out: Collection[int]) -> OfferTable:
    """The table of these offers; `sold_out` are products."""
    keys = offer_rows["offer_key"]
    sold_out_share = covers["product_key"].isin(list(sold_out)).groupby(covers["offer_key"]).mean()
    return OfferTable(
        offers=offer_rows.reset_index(drop=True),
        has_no_products=~keys.isin(covers["offer_key"].unique()).to_numpy(bool),
        is_sold_out=(keys.map(sold_out_share) == 1).to_numpy(bool),
        is_budget_spent=np.zeros(len(offer_rows), bool),
    )


def budget_spent(table: OfferTable, redemption_counts: pd.Series) -> OfferTable:
    """The same table, with the budgets that are spent; `redeemed` is how often each offer key was, by anybody."""
    return replace(table, is_budget_spent=is_budget_spent(table.offers, redemption_counts))


def evaluate_eligibility(table: OfferTable, customer_state: CustomerState, *, now: datetime) -> EligibilityCodes:
    """A code a customer (row) and offer (column): 0 where it may be made, else the first reason why not."""
    eligibility_codes = np.zeros((len(customer_state), len(table.offers)), np.int8)
    for code, rule in enumerate(_rules(now), start=1):
        is_ineligible = rule(table, customer_state)
        eligibility_codes[(eligibility_codes == 0) & is_ineligible] = code
    return eligibility_codes


def restrict_to_request(
    eligibility_codes: EligibilityCodes,
    table: OfferTable,
    customer_state: CustomerState,
    *,
    channel: str | None = None,
    exclude: Collection[str] = (),
) -> EligibilityCodes:
    """The same verdict, narrowed to what a question asks for: one channel, and none of the excluded offers."""
    narrowed = eligibility_codes.copy()
    if channel is not None:
        not_on_channel = np.array(
            [
                bool(len(offer_channels)) and channel not in offer_channels
                for offer_channels in table.offers["channels"]
            ],
            bool,
        )
        not_allowed = np.array(
            [
                channel not in (*CONSENT_FREE_CHANNELS, *allowed_channels)
                for allowed_channels in customer_state.channels
            ],
            bool,
        )
        narrowed[(narrowed == 0) & not_on_channel] = _NOT_ON_CHANNEL
        narrowed[(narrowed == 0) & not_allowed[:, None]] = _CHANNEL_NOT_ALLOWED
        if channel not in CONSENT_FREE_CHANNELS:
            narrowed[(narrowed == 0) & _exceeds_contact_cap(table, customer_state)] = _OVER_CONTACT_CAP
    is_excluded = table.offers["called"].isin(list(exclude)).to_numpy(bool)
    narrowed[(narrowed == 0) & is_excluded] = _EXCLUDED
    return narrowed


EligibilityRule = Callable[[OfferTable, CustomerState], Flags]


def _rules(now: datetime) -> tuple[EligibilityRule, ...]:
    """In the order of REASONS, after the first."""
    return (
        lambda table, customer_state: (table.offers["ends_at"] <= now).to_numpy(bool),
        lambda table, customer_state: (table.offers["starts_at"] > now).to_numpy(bool),
        lambda table, customer_state: table.spent,
        lambda table, customer_state: table.empty,
        lambda table, customer_state: table.sold_out,
        lambda table, customer_state: ~customer_state.sensitive[:, None] & table.offers["sensitive"].to_numpy(bool),
        _no_allowed_channel,
        _not_received,
        _unknown_segment,
        _outside_segment,
        _min_spend_too_high,
        _already_redeemed,
        _over_contact_cap,
    )


def _no_allowed_channel(table: OfferTable, customer_state: CustomerState) -> Flags:
    """Offers made on channels of which a customer allows none; one without channels can be made anywhere."""
    names, on_channel = table.offered_channels
    is_allowed = np.array(
        [
            [name in (*CONSENT_FREE_CHANNELS, *allowed_channels) for name in names]
            for allowed_channels in customer_state.channels
        ],
        bool,
    )
    is_allowed = is_allowed.reshape(len(customer_state), len(names))
    can_contact = is_allowed.astype(np.float32) @ on_channel.T.astype(np.float32) > 0
    return ~can_contact & on_channel.any(axis=1)


def _not_received(table: OfferTable, customer_state: CustomerState) -> Flags:
    campaigns, column = table.campaign_index
    received = _pairs_to_matrix(customer_state.received_campaigns, campaigns, len(customer_state))
    is_recipient = np.where(column >= 0, received[:, column] if len(campaigns) else False, False)
    return np.asarray(~is_recipient & (table.offers["audience"] == "received").to_numpy(bool))


def _unknown_segment(table: OfferTable, customer_state: CustomerState) -> Flags:
    segment = table.offers["segment"]
    return (segment.notna() & ~segment.isin(list(customer_state.segments))).to_numpy(bool)


def _outside_segment(table: OfferTable, customer_state: CustomerState) -> Flags:
    is_outside = np.zeros((len(customer_state), len(table.offers)), bool)
    for column, segment in enumerate(table.offers["segment"]):
        if segment in customer_state.segments:
            is_outside[:, column] = ~np.isin(np.arange(len(customer_state)), list(customer_state.segments[segment]))
    return is_outside


def _min_spend_too_high(table: OfferTable, customer_state: CustomerState) -> Flags:
    min_spend = table.offers["min_spend"].to_numpy(np.float64)
    return np.asarray(
        min_spend > MAX_SPEND_RATIO * customer_state.basket_value[:, None]
    )  # nothing is out of reach of an unknown basket


def _already_redeemed(table: OfferTable, customer_state: CustomerState) -> Flags:
    return _pairs_to_matrix(customer_state.redeemed_offers, pd.Index(table.offers["offer_key"]), len(customer_state))


def _over_contact_cap(table: OfferTable, customer_state: CustomerState) -> Flags:
    """Offers that need one more contact than the shop allows; those made in the shop or on its site need none."""
    names, on_channel = table.offered_channels
    is_open = np.array([name in CONSENT_FREE_CHANNELS for name in names], bool)
    needs_contact = on_channel.any(axis=1) & ~(on_channel & is_open).any(axis=1)
    return _exceeds_contact_cap(table, customer_state) & needs_contact


def _exceeds_contact_cap(table: OfferTable, customer_state: CustomerState) -> Flags:
    """Cells of customers who are to be left alone, but for offers whose campaign has reached them already."""
    if customer_state.is_over_contact_cap is None or not customer_state.is_over_contact_cap.any():
        return np.zeros((len(customer_state), len(table.offers)), bool)
    campaigns, column = table.campaign_index
    received = _pairs_to_matrix(customer_state.received_campaigns, campaigns, len(customer_state))
    has_received = np.where(column >= 0, received[:, column] if len(campaigns) else False, False)
    return np.asarray(customer_state.is_over_contact_cap[:, None] & ~has_received)


def _pairs_to_matrix(pairs: pd.DataFrame, names: pd.Index, rows: int) -> Flags:
    """Pairs of (row, name) as a cross in each cell of a table, rows down and names across."""
    matrix = np.zeros((rows, len(names)), bool)
    columns = names.get_indexer(pd.Index(pairs.iloc[:, 1]))
    is_matched = columns >= 0
    matrix[pairs.iloc[:, 0].to_numpy(np.int64)[is_matched], columns[is_matched]] = True
    return matrix


def is_budget_spent(offer_rows: pd.DataFrame, redemption_counts: pd.Series) -> NDArray[np.bool_]:
    """Which of these offers have paid out their budget; `redeemed` is how often each offer key was, by anybody."""
    value = offer_rows["value"].where(offer_rows["value_kind"] == "amount").fillna(0).to_numpy(np.float64)
    spent_amount = offer_rows["offer_key"].map(redemption_counts).fillna(0).to_numpy(np.float64) * value
    return np.asarray(spent_amount >= offer_rows["budget"].to_numpy(np.float64))
