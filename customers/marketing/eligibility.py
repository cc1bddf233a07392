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

from customers import validity
from customers.consent import OPEN_CHANNELS

Flags = NDArray[np.bool_]
Codes = NDArray[np.int8]

#: A customer who would have to spend so many times their usual basket is not helped by an offer.
OUT_OF_REACH = 2.0

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
_CONTACTED, _NOT_ON_CHANNEL, _CHANNEL_NOT_ALLOWED, _LEFT_OUT = range(13, 17)


@dataclass(frozen=True)
class Table:
    """The offers as they lie on the table, a row each, and what holds for each of them whoever asks.

    `offers` has the columns of the book, and what each is `called` outside; `empty`, `sold_out` and `spent` are
    flags in its order. Laid out once, it serves many questions: what is worked out of it is kept.
    """

    offers: pd.DataFrame
    empty: Flags
    sold_out: Flags
    spent: Flags

    @cached_property
    def made_on(self) -> tuple[list[str], Flags]:
        """The names of channels, and on which of them each offer is made."""
        channels = self.offers["channels"].tolist()
        names = sorted({name for on in channels for name in on})
        made = np.array([[name in on for name in names] for on in channels], bool)
        return names, made.reshape(len(channels), len(names))

    @cached_property
    def campaigns(self) -> tuple[pd.Index, NDArray[np.int64]]:
        """The campaigns there are, and the place of each offer's among them; -1 for none."""
        names = pd.Index(self.offers["campaign_id"].dropna().unique())
        return names, np.asarray(names.get_indexer(pd.Index(self.offers["campaign_id"])), np.int64)

    @cached_property
    def ids(self) -> list[str]:
        """What each is called."""
        return self.offers["called"].tolist()

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """When each ends, as a number that rises with time."""
        return self.offers["ends_at"].to_numpy(np.int64)


@dataclass(frozen=True)
class Standing:
    """What is known of the customers who ask, a row each.

    `channels`: those on which each may be contacted. `sensitive`: whether their sensitive purchases may be looked
    at. `basket`: the value of their usual basket, NaN where unknown. `received` and `redeemed`: pairs of rows and
    campaign ids, and of rows and offer keys: two sources may call different offers alike. `segments`: the rows in
    each segment that the shop knows. `contacted`: who was written to, called or sent post so often already that the
    shop leaves them alone for now; what they come and see for themselves may still be shown.
    """

    channels: Sequence[Collection[str]]
    sensitive: Flags
    basket: NDArray[np.float64]
    received: pd.DataFrame
    redeemed: pd.DataFrame
    segments: Mapping[str, Collection[int]]
    contacted: Flags | None = None

    def __len__(self) -> int:
        return len(self.channels)


def lay_out(offers: pd.DataFrame, covers: pd.DataFrame, *, sold_out: Collection[int]) -> Table:
    """The table of these offers; `sold_out` are products."""
    keys = offers["offer_key"]
    gone = covers["product_key"].isin(list(sold_out)).groupby(covers["offer_key"]).mean()
    return Table(
        offers=offers.reset_index(drop=True),
        empty=~keys.isin(covers["offer_key"].unique()).to_numpy(bool),
        sold_out=(keys.map(gone) == 1).to_numpy(bool),
        spent=np.zeros(len(offers), bool),
    )


def paid_out(table: Table, redeemed: pd.Series) -> Table:
    """The same table, with the budgets that are spent; `redeemed` is how often each offer key was, by anybody."""
    return replace(table, spent=validity.spent(table.offers, redeemed))


def judge(table: Table, standing: Standing, *, now: datetime) -> Codes:
    """A code a customer (row) and offer (column): 0 where it may be made, else the first reason why not."""
    verdict = np.zeros((len(standing), len(table.offers)), np.int8)
    for code, rule in enumerate(_rules(now), start=1):
        against = rule(table, standing)
        verdict[(verdict == 0) & against] = code
    return verdict


def wished(
    verdict: Codes, table: Table, standing: Standing, *, channel: str | None = None, exclude: Collection[str] = ()
) -> Codes:
    """The same verdict, narrowed to what a question asks for: one channel, and none of the excluded offers."""
    narrowed = verdict.copy()
    if channel is not None:
        elsewhere = np.array([bool(len(on)) and channel not in on for on in table.offers["channels"]], bool)
        refused = np.array([channel not in (*OPEN_CHANNELS, *mine) for mine in standing.channels], bool)
        narrowed[(narrowed == 0) & elsewhere] = _NOT_ON_CHANNEL
        narrowed[(narrowed == 0) & refused[:, None]] = _CHANNEL_NOT_ALLOWED
        if channel not in OPEN_CHANNELS:
            narrowed[(narrowed == 0) & _another_contact(table, standing)] = _CONTACTED
    left_out = table.offers["called"].isin(list(exclude)).to_numpy(bool)
    narrowed[(narrowed == 0) & left_out] = _LEFT_OUT
    return narrowed


Rule = Callable[[Table, Standing], Flags]


def _rules(now: datetime) -> tuple[Rule, ...]:
    """In the order of REASONS, after the first."""
    return (
        lambda table, standing: (table.offers["ends_at"] <= now).to_numpy(bool),
        lambda table, standing: (table.offers["starts_at"] > now).to_numpy(bool),
        lambda table, standing: table.spent,
        lambda table, standing: table.empty,
        lambda table, standing: table.sold_out,
        lambda table, standing: ~standing.sensitive[:, None] & table.offers["sensitive"].to_numpy(bool),
        _unreachable,
        _not_received,
        _unknown_segment,
        _outside_segment,
        _out_of_reach,
        _redeemed,
        _too_often,
    )


def _unreachable(table: Table, standing: Standing) -> Flags:
    """Offers made on channels of which a customer allows none; one without channels can be made anywhere."""
    names, made_on = table.made_on
    may = np.array([[name in (*OPEN_CHANNELS, *mine) for name in names] for mine in standing.channels], bool)
    may = may.reshape(len(standing), len(names))
    reached = may.astype(np.float32) @ made_on.T.astype(np.float32) > 0
    return ~reached & made_on.any(axis=1)


def _not_received(table: Table, standing: Standing) -> Flags:
    campaigns, column = table.campaigns
    got = _crossed(standing.received, campaigns, len(standing))
    mine = np.where(column >= 0, got[:, column] if len(campaigns) else False, False)
    return np.asarray(~mine & (table.offers["audience"] == "received").to_numpy(bool))


def _unknown_segment(table: Table, standing: Standing) -> Flags:
    segment = table.offers["segment"]
    return (segment.notna() & ~segment.isin(list(standing.segments))).to_numpy(bool)


def _outside_segment(table: Table, standing: Standing) -> Flags:
    outside = np.zeros((len(standing), len(table.offers)), bool)
    for column, segment in enumerate(table.offers["segment"]):
        if segment in standing.segments:
            outside[:, column] = ~np.isin(np.arange(len(standing)), list(standing.segments[segment]))
    return outside


def _out_of_reach(table: Table, standing: Standing) -> Flags:
    least = table.offers["min_spend"].to_numpy(np.float64)
    return np.asarray(least > OUT_OF_REACH * standing.basket[:, None])  # nothing is out of reach of an unknown basket


def _redeemed(table: Table, standing: Standing) -> Flags:
    return _crossed(standing.redeemed, pd.Index(table.offers["offer_key"]), len(standing))


def _too_often(table: Table, standing: Standing) -> Flags:
    """Offers that need one more contact than the shop allows; those made in the shop or on its site need none."""
    names, made_on = table.made_on
    open_ = np.array([name in OPEN_CHANNELS for name in names], bool)
    calling = made_on.any(axis=1) & ~(made_on & open_).any(axis=1)
    return _another_contact(table, standing) & calling


def _another_contact(table: Table, standing: Standing) -> Flags:
    """Cells of customers who are to be left alone, but for offers whose campaign has reached them already."""
    if standing.contacted is None or not standing.contacted.any():
        return np.zeros((len(standing), len(table.offers)), bool)
    campaigns, column = table.campaigns
    got = _crossed(standing.received, campaigns, len(standing))
    reached = np.where(column >= 0, got[:, column] if len(campaigns) else False, False)
    return np.asarray(standing.contacted[:, None] & ~reached)


def _crossed(pairs: pd.DataFrame, names: pd.Index, rows: int) -> Flags:
    """Pairs of (row, name) as a cross in each cell of a table, rows down and names across."""
    crossed = np.zeros((rows, len(names)), bool)
    columns = names.get_indexer(pd.Index(pairs.iloc[:, 1]))
    known = columns >= 0
    crossed[pairs.iloc[:, 0].to_numpy(np.int64)[known], columns[known]] = True
    return crossed
