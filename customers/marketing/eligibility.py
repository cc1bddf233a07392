"""Decides which offers may be made to which customers: one table of rules, and of every refusal the first reason.

`RULES` holds for every question, whether all offers are judged for a customer or a stored offer is judged again.
`REQUEST_RULES` hold for one request alone. Facts of the offer come first, and what a customer has not allowed comes
before anything that the customer did: a reason must not reveal purchases that the shop may not look at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from customers.marketing.offer_table import Flags, Ints, OfferTable
from customers.privacy.consents import CONSENT_FREE_CHANNELS

Floats = NDArray[np.float64]
EligibilityCodes = NDArray[np.int8]
Circumstance = TypeVar("Circumstance")

#: An offer is refused where its minimum spend is more than so many times the customer's usual basket.
MAX_SPEND_RATIO = 2.0


@dataclass(frozen=True)
class CustomerState:
    """What the rules read of customers, one row per customer.

    `channels`: those on which each may be contacted. `allows_sensitive`: whether their sensitive purchases may be
    looked at, shape (n_customers,). `basket_value`: the value of their usual basket, NaN where unknown, likewise.
    `received_campaigns`: columns row, campaign_id. `redeemed_offers`: columns row, offer_key (two sources may use the
    same offer id). `segments`: the rows in each segment that the shop has. `is_over_contact_cap`: who was written to,
    called or sent post as often as the shop allows; they may still be shown what they come to see by themselves.
    """

    channels: Sequence[Collection[str]]
    allows_sensitive: Flags
    basket_value: Floats
    received_campaigns: pd.DataFrame
    redeemed_offers: pd.DataFrame
    segments: Mapping[str, Collection[int]]
    is_over_contact_cap: Flags | None = None

    def __len__(self) -> int:
        return len(self.channels)


# Rules --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CandidatePairs:
    """Customers and offers to judge together, as rows of a CustomerState and rows (`columns`) of an OfferTable.

    The two index arrays broadcast against each other: (n, 1) and (1, m) for every pair, (n,) and (n,) for given pairs.
    A rule answers with flags that broadcast to `shape`, so that the same rule serves both.
    """

    table: OfferTable
    customer_state: CustomerState
    rows: Ints
    columns: Ints

    @classmethod
    def all_pairs(cls, table: OfferTable, customer_state: CustomerState) -> CandidatePairs:
        """Every customer with every offer."""
        rows, columns = np.ix_(np.arange(len(customer_state)), np.arange(len(table.offers)))
        return cls(table, customer_state, rows, columns)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an answer: (n_customers, n_offers) or (n_pairs,)."""
        return np.broadcast_shapes(self.rows.shape, self.columns.shape)

    @cached_property
    def customer_channels(self) -> Ints:
        """The channels that each customer accepts, as a sum of the table's bits: (n_customers, 1) or (n_pairs,)."""
        allowed_channels = self.table.encode_channels(self.customer_state.channels)
        return allowed_channels[self.rows] | self.table.open_channels

    @cached_property
    def has_received_campaign(self) -> Flags:
        """Whether the offer's campaign has reached the customer: (n_customers, n_offers) or (n_pairs,)."""
        campaigns, positions = self.table.campaigns
        if not len(campaigns):
            return np.zeros(self.shape, bool)
        received = _pairs_to_matrix(self.customer_state.received_campaigns, campaigns, len(self.customer_state))
        campaign = positions[self.columns]
        return np.asarray(received[self.rows, campaign] & (campaign >= 0))

    @cached_property
    def is_over_contact_cap(self) -> Flags:
        """Whether a message about the offer would be one contact too many: (n_customers, n_offers) or (n_pairs,).

        A campaign that has reached the customer already is no further contact. Where no customer is at the cap, it is
        one flag for all pairs.
        """
        is_over_cap = self.customer_state.is_over_contact_cap
        if is_over_cap is None or not is_over_cap.any():
            return _NO_PAIR
        return is_over_cap[self.rows] & ~self.has_received_campaign


@dataclass(frozen=True)
class OfferRequest:
    """What a request asks of offers: one channel, or any where it is None, and none of these offers."""

    channel: str | None = None
    excluded_ids: Collection[str] = ()

    @property
    def needs_consent(self) -> bool:
        """Whether it asks for a channel on which a customer is contacted."""
        return self.channel is not None and self.channel not in CONSENT_FREE_CHANNELS


@dataclass(frozen=True)
class Rule(Generic[Circumstance]):
    """A reason to refuse an offer to a customer.

    `applies` gives flags that broadcast to the pairs' shape; beside the pairs it gets the time at which they are
    judged, or the request. `rechecked`: whether the rule is judged again for stored offers (see `stored_offers`).
    """

    code: int
    reason: str
    applies: Callable[[CandidatePairs, Circumstance], Flags]
    rechecked: bool


_NO_PAIR: Flags = np.zeros((), bool)


def _has_ended(pairs: CandidatePairs, now: datetime) -> Flags:
    return (pairs.table.offers["ends_at"] <= now).to_numpy(bool)[pairs.columns]


def _has_not_begun(pairs: CandidatePairs, now: datetime) -> Flags:
    return (pairs.table.offers["starts_at"] > now).to_numpy(bool)[pairs.columns]


def _is_budget_spent(pairs: CandidatePairs, _now: datetime) -> Flags:
    return pairs.table.is_budget_spent[pairs.columns]


def _has_no_products(pairs: CandidatePairs, _now: datetime) -> Flags:
    return pairs.table.has_no_products[pairs.columns]


def _is_sold_out(pairs: CandidatePairs, _now: datetime) -> Flags:
    return pairs.table.is_sold_out[pairs.columns]


def _is_disallowed_sensitive(pairs: CandidatePairs, _now: datetime) -> Flags:
    is_sensitive = pairs.table.offers["sensitive"].to_numpy(bool)
    return np.asarray(is_sensitive[pairs.columns] & ~pairs.customer_state.allows_sensitive[pairs.rows])


def _has_no_allowed_channel(pairs: CandidatePairs, _now: datetime) -> Flags:
    """Offers made on channels of which the customer allows none; an offer without channels can be made anywhere."""
    offer_channels = pairs.table.offer_channels[pairs.columns]
    return np.asarray((offer_channels != 0) & (offer_channels & pairs.customer_channels == 0))


def _is_not_recipient(pairs: CandidatePairs, _now: datetime) -> Flags:
    is_for_recipients = (pairs.table.offers["audience"] == "received").to_numpy(bool)
    if not is_for_recipients.any():
        return _NO_PAIR
    return np.asarray(is_for_recipients[pairs.columns] & ~pairs.has_received_campaign)


def _is_segment_unknown(pairs: CandidatePairs, _now: datetime) -> Flags:
    segment = pairs.table.offers["segment"]
    return (segment.notna() & ~segment.isin(list(pairs.customer_state.segments))).to_numpy(bool)[pairs.columns]


def _is_outside_segment(pairs: CandidatePairs, _now: datetime) -> Flags:
    segments = pairs.customer_state.segments
    if not segments:
        return _NO_PAIR
    is_member = np.zeros((len(pairs.customer_state), len(segments)), bool)
    for position, members in enumerate(segments.values()):
        is_member[list(members), position] = True
    offer_segment = pd.Index(list(segments)).get_indexer(pd.Index(pairs.table.offers["segment"]))[pairs.columns]
    return np.asarray((offer_segment >= 0) & ~is_member[pairs.rows, offer_segment])


def _is_minimum_spend_too_high(pairs: CandidatePairs, _now: datetime) -> Flags:
    """No minimum spend is too high for a customer whose usual basket is unknown."""
    min_spend = pairs.table.offers["min_spend"].to_numpy(np.float64)
    return np.asarray(min_spend[pairs.columns] > MAX_SPEND_RATIO * pairs.customer_state.basket_value[pairs.rows])


def _is_redeemed(pairs: CandidatePairs, _now: datetime) -> Flags:
    state = pairs.customer_state
    return _pairs_to_matrix(state.redeemed_offers, pairs.table.offer_keys, len(state))[pairs.rows, pairs.columns]


def _needs_one_contact_too_many(pairs: CandidatePairs, _now: datetime) -> Flags:
    """Offers that are made on contact channels alone; those made in the store or on the web site need no contact."""
    channels = pairs.table.offer_channels
    needs_contact = (channels != 0) & (channels & pairs.table.open_channels == 0)
    return np.asarray(needs_contact[pairs.columns] & pairs.is_over_contact_cap)


def _is_not_on_channel(pairs: CandidatePairs, request: OfferRequest) -> Flags:
    if request.channel is None:
        return _NO_PAIR
    channels = pairs.table.offer_channels
    return ((channels != 0) & (channels & pairs.table.channel_bits.get(request.channel, 0) == 0))[pairs.columns]


def _is_channel_disallowed(pairs: CandidatePairs, request: OfferRequest) -> Flags:
    if not request.needs_consent:
        return _NO_PAIR
    is_allowed = np.array([request.channel in channels for channels in pairs.customer_state.channels], bool)
    return ~is_allowed[pairs.rows]


def _exceeds_contact_cap(pairs: CandidatePairs, request: OfferRequest) -> Flags:
    return pairs.is_over_contact_cap if request.needs_consent else _NO_PAIR


def _is_excluded(pairs: CandidatePairs, request: OfferRequest) -> Flags:
    return pairs.table.offers["public_id"].isin(list(request.excluded_ids)).to_numpy(bool)[pairs.columns]


_OVER_CONTACT_CAP = "the customer has been contacted as often as the shop allows"

#: In the order in which they are judged: the first that applies gives the reason.
RULES: tuple[Rule[datetime], ...] = (
    Rule(1, "it has ended", _has_ended, rechecked=True),
    Rule(2, "it has not begun yet", _has_not_begun, rechecked=True),
    Rule(3, "its budget is spent", _is_budget_spent, rechecked=True),
    Rule(4, "nothing that it is for is sold here", _has_no_products, rechecked=True),
    Rule(5, "all that it is for is sold out", _is_sold_out, rechecked=True),
    Rule(
        6,
        "it is for sensitive products, which this customer has not allowed to be looked at",
        _is_disallowed_sensitive,
        rechecked=True,
    ),
    Rule(7, "the customer has not allowed any of its channels", _has_no_allowed_channel, rechecked=True),
    Rule(8, "it is only for those who received its campaign", _is_not_recipient, rechecked=True),
    Rule(9, "it is for a segment that the shop does not know", _is_segment_unknown, rechecked=True),
    Rule(10, "the customer is not in its segment", _is_outside_segment, rechecked=True),
    # Not rechecked: a usual basket is a feature, and `customers` cannot read features. It was checked when the
    # nightly run stored the offer; baskets move slowly, and the rule spares a customer a useless offer, no more.
    Rule(11, "its minimum spend is more than twice their usual basket", _is_minimum_spend_too_high, rechecked=False),
    Rule(12, "the customer has redeemed it already", _is_redeemed, rechecked=True),
    Rule(13, _OVER_CONTACT_CAP, _needs_one_contact_too_many, rechecked=True),
)

#: What a request adds, judged after RULES. A stored offer was stored for no request: none is rechecked.
REQUEST_RULES: tuple[Rule[OfferRequest], ...] = (
    Rule(14, "it is not made on this channel", _is_not_on_channel, rechecked=False),
    Rule(15, "the customer has not allowed this channel", _is_channel_disallowed, rechecked=False),
    Rule(13, _OVER_CONTACT_CAP, _exceeds_contact_cap, rechecked=False),
    Rule(16, "it was left out of the question", _is_excluded, rechecked=False),
)

_REASON_BY_CODE = (
    {0: ""} | {rule.code: rule.reason for rule in RULES} | {rule.code: rule.reason for rule in REQUEST_RULES}
)
#: The reason text of each code; 0 is an offer that may be made.
REASONS = tuple(_REASON_BY_CODE[code] for code in sorted(_REASON_BY_CODE))


# Questions ----------------------------------------------------------------------------------------------------------


def evaluate_eligibility(table: OfferTable, customer_state: CustomerState, *, now: datetime) -> EligibilityCodes:
    """The code of each customer and offer, shape (n_customers, n_offers): 0 eligible, else the first reason why not."""
    codes = np.zeros((len(customer_state), len(table.offers)), np.int8)
    return _with_first_codes(codes, RULES, CandidatePairs.all_pairs(table, customer_state), now)


def recheck_pairs(
    table: OfferTable, customer_state: CustomerState, rows: Ints, columns: Ints, *, now: datetime
) -> EligibilityCodes:
    """The code of each pair of a customer and an offer by the rechecked rules, shape (n_pairs,).

    `rows` index the customer state, `columns` the table, both of shape (n_pairs,).
    """
    rules = [rule for rule in RULES if rule.rechecked]
    pairs = CandidatePairs(table, customer_state, rows, columns)
    return _with_first_codes(np.zeros(pairs.shape, np.int8), rules, pairs, now)


def restrict_to_request(
    eligibility_codes: EligibilityCodes,
    table: OfferTable,
    customer_state: CustomerState,
    *,
    channel: str | None = None,
    exclude: Collection[str] = (),
) -> EligibilityCodes:
    """A copy of codes of shape (n_customers, n_offers), narrowed to one channel and to none of the excluded offers."""
    pairs = CandidatePairs.all_pairs(table, customer_state)
    return _with_first_codes(eligibility_codes.copy(), REQUEST_RULES, pairs, OfferRequest(channel, exclude))


def _with_first_codes(
    codes: EligibilityCodes, rules: Iterable[Rule[Circumstance]], pairs: CandidatePairs, circumstance: Circumstance
) -> EligibilityCodes:
    """Write into the codes that are 0 the code of the first rule that applies."""
    for rule in rules:
        codes[(codes == 0) & rule.applies(pairs, circumstance)] = rule.code
    return codes


def _pairs_to_matrix(pairs: pd.DataFrame, names: pd.Index, rows: int) -> Flags:
    """Pairs of (row, name) as flags of shape (rows, n_names)."""
    matrix = np.zeros((rows, len(names)), bool)
    columns = names.get_indexer(pd.Index(pairs.iloc[:, 1]))
    is_matched = columns >= 0
    matrix[pairs.iloc[:, 0].to_numpy(np.int64)[is_matched], columns[is_matched]] = True
    return matrix
