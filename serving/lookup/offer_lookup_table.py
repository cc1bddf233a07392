"""Offers, looked up: what a customer may get was judged at night; time, stock and budgets are judged now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray

from customers.marketing import eligibility
from customers.marketing.eligibility import CustomerState, EligibilityCodes
from customers.marketing.offer_table import Flags
from customers.privacy import consents
from customers.reports import recommendation_reasons
from customers.shop import timestamps
from serving.api import predictions
from serving.arrays.night_arrays import NightArrays
from serving.lookup.answer_table import AnswerTable, Fields, LookupContext, format_micros, load_product_texts
from serving.lookup.question_parser import LookupQuestion
from serving.scoring import offers, value
from serving.scoring.night_columns import NO_EVIDENCE, OFFER_BASES, OFFER_SOURCES

DEFAULT_LENGTH = 5
_NEVER = np.iinfo(np.int64).max


class OfferRefusals(NamedTuple):
    """Which offers are refused to everybody until `until_micros`: a code for each offer, (n_offers,), 0 for none.

    `entries` is the JSON of all of them, the nearest to eligible first.
    """

    until_micros: int
    codes: EligibilityCodes
    entries: list[bytes]


class OfferLookupTable(AnswerTable):
    """The likeliest eligible offers of each customer, and the others with the first reason against each."""

    def __init__(self, arrays: NightArrays, context: LookupContext) -> None:
        super().__init__(arrays, context)
        self.table = context.offer_table
        self.names = load_product_texts(context, self.details["products"])[1]
        self.sensitive = context.inventory.sensitive_products
        offer_rows = self.table.offers
        self.ids = self.table.offer_ids
        self.campaigns = (
            offer_rows["campaign_id"].astype(object).where(offer_rows["campaign_id"].notna(), None).tolist()
        )
        self.ends = _to_micros(offer_rows["ends_at"])
        self.times = np.sort(np.concatenate([self.ends, _to_micros(offer_rows["starts_at"])]))
        self.has_same_ends = self.table.end_times.tolist() == self.details["end_times"]
        self.was_refused = np.array(self.details["refused"], bool)
        self.campaign_codes = self.table.campaigns[1]
        self._refusals: OfferRefusals | None = None
        self._entries: dict[tuple[int, int], bytes] = {}

    def build_fields(self, rows: Sequence[int], question: LookupQuestion, now: datetime) -> list[Fields | None]:
        """The fields items, dropped, dropped_count and nothing of each row's result."""
        refusals, positions = self._refuse_now(now), list(rows)
        own_codes = self.columns["codes"][positions]
        is_outdated = self.columns["is_rechecked"][positions] | self._has_other_offers(own_codes, refusals)
        codes = np.where(refusals.codes != 0, refusals.codes, own_codes)
        if question.channel is not None:
            codes = self._restrict_to_channel(codes, positions, question.channel)
        limit = predictions.ineligible_limit(len(question.customer_ids))
        n = question.n or DEFAULT_LENGTH
        return [
            None if outdated else self._build_row(row, row_codes, refusals, n, limit)
            for row, row_codes, outdated in zip(positions, codes, is_outdated.tolist(), strict=True)
        ]

    def _has_other_offers(self, own_codes: EligibilityCodes, refusals: OfferRefusals) -> Flags:
        """Whether scores no longer hold, (n,): an offer has come to be eligible, or one of a campaign no longer is.

        The score of an offer compares it with the others of its campaign for which the customer is eligible. Where a
        campaign is over as a whole, no score depends on it.
        """
        is_refused = refusals.codes != 0
        is_own = own_codes == 0
        has_new = (is_own & (self.was_refused & ~is_refused)).any(axis=1)
        lost = np.flatnonzero(is_refused & ~self.was_refused)
        has_competing_offers = np.zeros(len(own_codes), bool)
        for campaign in np.unique(self.campaign_codes[lost]):
            of_campaign = self.campaign_codes == campaign
            has_lost = (is_own[:, of_campaign & is_refused & ~self.was_refused]).any(axis=1)
            has_competing_offers |= has_lost & is_own[:, of_campaign & ~is_refused].any(axis=1)
        return np.asarray(has_new | has_competing_offers)

    def _build_row(
        self, row: int, codes: EligibilityCodes, refusals: OfferRefusals, n: int, limit: int | None
    ) -> Fields | None:
        items = self._build_items(row, codes, n)
        if items is None:
            return None
        own = np.flatnonzero((codes != 0) & (refusals.codes == 0))
        listed = own[np.lexsort((-self.table.end_times[own], -codes[own]))][:limit]
        entries = [self._entry(*each) for each in zip(listed.tolist(), codes[listed].tolist(), strict=True)]
        dropped = entries + refusals.entries[: None if limit is None else limit - len(entries)]
        return {
            "items": items,
            "dropped": orjson.Fragment(b"[" + b",".join(dropped) + b"]"),
            "dropped_count": len(own) + len(refusals.entries),
            "nothing": offers.explain_none(codes),
        }

    def _build_items(self, row: int, codes: EligibilityCodes, n: int) -> list[Fields] | None:
        """The first n eligible offers, of which the last may give way to one on a complement (`offers.top_offers`)."""
        start, end = self.columns.bounds("cells", row)
        columns = self.columns["cells.column"][start:end]
        cells = np.flatnonzero(codes[columns] == 0)
        if not self.has_same_ends:
            p = self.columns["cells.p"][start:end][cells]
            keys = self.table.offer_keys.to_numpy(np.int64)[columns[cells]]
            cells = cells[np.lexsort((keys, self.table.end_times[columns[cells]], -p))]
        chosen = cells[:n].tolist()
        if n >= offers.MIN_LENGTH_FOR_COMPLEMENT and len(cells) > n:
            is_related = self.columns["cells.source"][start:end][cells] == OFFER_SOURCES.index("related")
            first = int(np.argmax(is_related)) if is_related.any() else 0
            if first >= n:
                chosen[-1] = int(cells[first])
        items = [self._build_item(rank, start + cell) for rank, cell in enumerate(chosen, start=1)]
        return None if any(item is None for item in items) else [item for item in items if item is not None]

    def _build_item(self, rank: int, cell: int) -> Fields | None:
        columns = self.columns
        column, gain = int(columns["cells.column"][cell]), float(columns["cells.gain"][cell])
        key, days = columns["cells.evidence"][cell].tolist()
        if key != NO_EVIDENCE and key in self.sensitive:
            return None
        text = self.details["texts"][columns["cells.reason"][cell]]
        evidence = [text] if key == NO_EVIDENCE else [key, days]
        currency = self.shop.currency
        return {
            "rank": rank,
            "offer_id": self.ids[column],
            "campaign_id": self.campaigns[column],
            "score": float(columns["cells.p"][cell]),
            "expected_gain": value.format_amount(gain, currency) if gain == gain else None,
            "gain_basis": OFFER_BASES[columns["cells.basis"][cell]],
            "currency": currency,
            "source": OFFER_SOURCES[columns["cells.source"][cell]],
            "reason": recommendation_reasons.evidence_reason("related", evidence, self.names),
            "expires_at": format_micros(int(self.ends[column])),
        }

    def _restrict_to_channel(self, codes: EligibilityCodes, rows: list[int], channel: str) -> EligibilityCodes:
        allowed = self.columns["channels"][rows].tolist()
        channels = [
            [name for position, name in enumerate(consents.CONSENT_CHANNELS) if bits >> position & 1]
            for bits in allowed
        ]
        return eligibility.restrict_to_request(codes, self.table, _state_with_channels(channels), channel=channel)

    def _refuse_now(self, now: datetime) -> OfferRefusals:
        """What is refused to everybody, judged again when an offer begins or ends."""
        at, refusals = timestamps.to_micros(now), self._refusals
        if refusals is None or at >= refusals.until_micros or not self._holds_since(refusals, at):
            refusals = self._refusals = self._judge(now)
        return refusals

    def _holds_since(self, refusals: OfferRefusals, at: int) -> bool:
        """Whether no offer begins or ends between this time and that of the refusals: a clock may be set back."""
        next_change = np.searchsorted(self.times, at, side="right")
        until = int(self.times[next_change]) if next_change < len(self.times) else _NEVER
        return until == refusals.until_micros

    def _judge(self, now: datetime) -> OfferRefusals:
        codes = offers.refuse_to_everybody(self.table, now)
        refused = np.flatnonzero(codes)
        order = refused[np.lexsort((-self.table.end_times[refused], -codes[refused]))]
        entries = [
            self._entry(column, code) for column, code in zip(order.tolist(), codes[order].tolist(), strict=True)
        ]
        later = np.searchsorted(self.times, timestamps.to_micros(now.astimezone(UTC)), side="right")
        until = int(self.times[later]) if later < len(self.times) else _NEVER
        return OfferRefusals(until, codes, entries)

    def _entry(self, column: int, code: int) -> bytes:
        """The JSON of a refused offer with its reason."""
        entry = self._entries.get((column, code))
        if entry is None:
            entry = orjson.dumps({"offer_id": self.ids[column], "reason": eligibility.REASONS[code]})
            self._entries[column, code] = entry
        return entry


def _to_micros(times: pd.Series) -> NDArray[np.int64]:
    return times.dt.tz_convert("UTC").dt.tz_localize(None).astype("datetime64[us]").to_numpy().astype(np.int64)


def _state_with_channels(channels: list[list[str]]) -> CustomerState:
    """Customers of whom only the channels matter: what the night judged is not judged again."""
    count, nothing = len(channels), np.empty(0, np.int64)
    return CustomerState(
        channels=channels,
        allows_sensitive=np.zeros(count, bool),
        basket_value=np.full(count, np.nan),
        received_campaigns=pd.DataFrame({"row": nothing, "campaign_id": nothing}),
        redeemed_offers=pd.DataFrame({"row": nothing, "offer_key": nothing}),
        segments={},
    )
