"""Columns of a night's predictions, from which the server answers without scoring: one encoder for each model.

Only customers with features have a row. What the columns mean is read by `serving.lookup`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple, get_args

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray

from customers.ledger import interactions
from customers.marketing import contact_policy
from customers.marketing.offer_table import OfferTable
from customers.privacy import consents
from customers.scores import score_details
from customers.shop.retention_costs import Band
from customers.shop.settings import Shop
from serving.arrays.column_files import Column, ListColumns
from serving.recommendations import merchandising, short_lists
from serving.recommendations.evidence import EVIDENCE_COLUMNS
from serving.scoring import restock, timing
from serving.scoring.churn import ChurnPrediction
from serving.scoring.fallback import Prediction
from serving.scoring.offers import GAIN_BASES, OfferPrediction
from serving.scoring.recommender import RecommendedLists
from serving.scoring.restock import RestockPrediction
from serving.scoring.timing import ReturnPrediction
from serving.scoring.value import ValuePrediction

BANDS: tuple[str, ...] = get_args(Band)
PRODUCT_SOURCES = ("again", "new", "popular", merchandising.EXPLORED, merchandising.PINNED)
OFFER_SOURCES = ("again", "new", "related", "popular")
OFFER_BASES = (None, *GAIN_BASES.values())
SHORTAGE_RULES = tuple(merchandising.EXCLUSION_REASONS)
#: Days of a quantile beyond the curve, and the key and days of no evidence.
NO_DAYS, NO_EVIDENCE = 0, -1


class EncodedRows(NamedTuple):
    """Columns by name, a row per customer, and list columns by the name of their list."""

    columns: dict[str, Column]
    lists: dict[str, ListColumns]


class TextCodes:
    """Numbers for texts that occur many times, given in the order in which the texts first occur."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._codes: dict[str, int] = {}

    def encode(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """The number of each text, shape (n,)."""
        for text in texts:
            if text not in self._codes:
                self._codes[text] = len(self.texts)
                self.texts.append(text)
        return np.array([self._codes[text] for text in texts], np.int32)


def encode_common(prediction: Prediction, rows: NDArray[np.int64]) -> dict[str, Column]:
    """The columns that all models have: customer_key, as_of (microseconds) and fallback, of these rows (n,)."""
    as_of = pd.to_datetime(prediction.frame["as_of"], utc=True).dt.tz_localize(None).astype("datetime64[us]")
    return {
        "customer_key": prediction.frame["customer_key"].to_numpy(np.int64)[rows],
        "as_of": as_of.to_numpy().astype(np.int64)[rows],
        "fallback": np.asarray(prediction.fallback, np.bool_)[rows],
    }


def encode_churn(prediction: ChurnPrediction, rows: NDArray[np.int64]) -> EncodedRows:
    """Columns probability and band; list reasons: the JSON of the reason texts, as bytes. rows: (n,)."""
    texts = [orjson.dumps([text for text, _ in prediction.reasons[row]]) for row in rows.tolist()]
    columns: dict[str, Column] = {
        "probability": prediction.probability[rows],
        "band": np.array([BANDS.index(prediction.band[row]) for row in rows.tolist()], np.uint8),
    }
    return EncodedRows(columns, {"reasons": _byte_lists(texts)})


def encode_timing(prediction: ReturnPrediction, rows: NDArray[np.int64]) -> EncodedRows:
    """Columns p, (n, windows), NaN beyond the curve, and days, (n, quantiles), NO_DAYS likewise. rows: (n,)."""
    p = np.column_stack([prediction.probability_within(days) for days in timing.WITHIN_DAYS])
    length = prediction.cdf.shape[1]
    days = np.column_stack([prediction.quantile_days(share) for share in timing.QUANTILES.values()])
    return EncodedRows({"p": p[rows], "days": np.where(days <= length, days, NO_DAYS).astype(np.int32)[rows]}, {})


def encode_value(prediction: ValuePrediction, rows: NDArray[np.int64]) -> EncodedRows:
    """Column expected, in the shop's currency. rows: (n,)."""
    return EncodedRows({"expected": prediction.expected[rows]}, {})


def encode_restock(prediction: RestockPrediction, rows: NDArray[np.int64], categories: TextCodes) -> EncodedRows:
    """List items: category (code), p, (n_items, 3), wait_days (NaN for none) and evidence, (n_items, 3). rows: (n,)."""
    keys = prediction.frame["customer_key"].to_numpy(np.int64)[rows]
    positions = pd.Index(keys).get_indexer(pd.Index(prediction.items["customer_key"]))
    order = np.argsort(positions, kind="stable")[(positions < 0).sum() :]
    items = prediction.items.take(order)
    values = {
        "category": categories.encode(items["category"].tolist()),
        "p": items[restock.ITEM_COLUMNS[2:5]].to_numpy(np.float64),
        "wait_days": items["wait_days"].to_numpy(np.float64),
        "evidence": items[restock.EVIDENCE_COLUMNS].to_numpy(np.float64),
    }
    return EncodedRows({}, {"items": ListColumns(np.bincount(positions[order], minlength=len(rows)), values)})


def encode_recommender(prediction: RecommendedLists, rows: NDArray[np.int64], words: TextCodes) -> EncodedRows:
    """A list for each name: product_key, score, source, evidence, (n_items, 3), and word (-1 for none). rows: (n,).

    Column shortage, (n, lists), has a bit for each rule of SHORTAGE_RULES that left something out of a short list.
    """
    keys = prediction.frame["customer_key"].to_numpy(np.int64)[rows]
    lists = {
        name: _encode_products(prediction.ranked[prediction.ranked["list"] == name], keys, words)
        for name in score_details.LIST_NAMES
    }
    history = prediction.frame.take(rows).reset_index(drop=True)
    shortage = np.column_stack([_encode_shortages(prediction, history, name) for name in score_details.LIST_NAMES])
    return EncodedRows({"shortage": shortage}, lists)


def _encode_products(ranked: pd.DataFrame, keys: NDArray[np.int64], words: TextCodes) -> ListColumns:
    positions = pd.Index(keys).get_indexer(pd.Index(ranked["customer_key"]))
    order = np.lexsort((ranked["rank"], positions))[(positions < 0).sum() :]
    listed = ranked.take(order)
    texts = listed["words"].tolist() if "words" in listed else [None] * len(listed)
    word = np.full(len(listed), NO_EVIDENCE, np.int32)
    has_word = np.array([text is not None for text in texts], bool)
    word[has_word] = words.encode([text for text in texts if text is not None])
    values = {
        "product_key": listed["product_key"].to_numpy(np.int64),
        "score": listed["score"].to_numpy(np.float64),
        "source": np.array([PRODUCT_SOURCES.index(source) for source in listed["source"]], np.uint8),
        "evidence": listed[[*EVIDENCE_COLUMNS]].to_numpy(np.int64),
        "word": word,
    }
    return ListColumns(np.bincount(positions[order], minlength=len(keys)), values)


def _encode_shortages(prediction: RecommendedLists, history: pd.DataFrame, name: str) -> NDArray[np.uint16]:
    """The rules that left something out of each customer's list, where it is shorter than it could be: (n,)."""
    shortages = short_lists.explain_shortages(
        prediction.active_rules,
        history.assign(requested_list=name),
        prediction.ranked[prediction.ranked["list"] == name],
        score_details.MAX_STORED_ITEMS,
        hidden=prediction.hidden,
        consenting=prediction.consenting,
    )
    bits = {rule: 1 << position for position, rule in enumerate(SHORTAGE_RULES)}
    codes = [
        sum(bits[rule] for rule in shortages[key].rules) if key in shortages else 0
        for key in history["customer_key"].tolist()
    ]
    return np.array(codes, np.uint16)


def encode_offers(
    prediction: OfferPrediction,
    rows: NDArray[np.int64],
    reasons: TextCodes,
    table: OfferTable,
    codes: NDArray[np.int8],
    rechecked_keys: Collection[int],
) -> EncodedRows:
    """Columns codes, (n, offers), channels and is_rechecked; list cells: an entry for each offer that was eligible.

    A cell has column (of `table`, all offers of the shop), p, gain (NaN for none), basis, source, reason (a code) and
    evidence, (n_cells, 2): product key and days. rows: (n,). codes: (n_customers, n_offers), by the rules about
    customers. channels: a bit for each of consents.CONSENT_CHANNELS. rechecked_keys: customer keys.
    """
    offered, keys = prediction.ranked_offers, prediction.frame["customer_key"].to_numpy(np.int64)[rows]
    state = offered.customer_state
    row_positions = np.full(len(prediction.frame), -1, np.int64)
    row_positions[rows] = np.arange(len(rows))
    positions = row_positions[offered.ranking["row"].to_numpy(np.int64)]
    order = np.argsort(positions, kind="stable")[(positions < 0).sum() :]
    cells = offered.ranking.take(order)
    evidence = cells[["evidence_key", "days"]].to_numpy(np.float64)
    values = {
        "column": table.offer_keys.get_indexer(pd.Index(cells["offer_key"])).astype(np.int32),
        "p": cells["p"].to_numpy(np.float64),
        "gain": cells["expected_gain"].to_numpy(np.float64),
        "basis": np.array([OFFER_BASES.index(basis) for basis in cells["gain_basis"].tolist()], np.uint8),
        "source": np.array([OFFER_SOURCES.index(source) for source in cells["source"].tolist()], np.uint8),
        "reason": reasons.encode(cells["reason"].tolist()),
        "evidence": np.where(np.isnan(evidence[:, :1]), NO_EVIDENCE, np.nan_to_num(evidence)).astype(np.int64),
    }
    bits = {channel: 1 << position for position, channel in enumerate(consents.CONSENT_CHANNELS)}
    channels = [sum(bits[channel] for channel in state.channels[row]) for row in rows.tolist()]
    columns = {
        "codes": codes[rows],
        "channels": np.array(channels, np.uint8),
        "is_rechecked": np.array([key in rechecked_keys for key in keys.tolist()], np.bool_),
    }
    return EncodedRows(columns, {"cells": ListColumns(np.bincount(positions[order], minlength=len(rows)), values)})


def customers_to_recheck(shop: Shop, keys: Sequence[int], as_of: datetime) -> set[int]:
    """Customers whose offers may change with time alone, or have changed since as_of.

    They have so many recent or planned contacts that they may come to the cap on contacts, or below it again; or
    contacts or redemptions that the night did not look at.
    """
    contacts, redemptions = (
        contact_policy.load_contacts(shop, keys),
        interactions.load_redemptions(shop, None, keys=keys),
    )
    is_new = [
        later["customer_key"].value_counts().sub(before["customer_key"].value_counts(), fill_value=0) > 0
        for later, before in (
            (contacts, contact_policy.load_contacts(shop, keys, as_of=as_of)),
            (redemptions, interactions.load_redemptions(shop, as_of, keys=keys)),
        )
    ]
    changed = {key for each in is_new for key in each.index[each].tolist()}
    if shop.contact_cap is None:
        return changed
    recent = contacts[contacts["happened_at"] >= as_of - pd.Timedelta(days=shop.contact_days)]
    counts = recent["customer_key"].value_counts()
    return changed | set(counts.index[counts >= shop.contact_cap].tolist())


def _byte_lists(texts: Sequence[bytes]) -> ListColumns:
    sizes = np.array([len(text) for text in texts], np.int64)
    return ListColumns(sizes, {"text": np.frombuffer(b"".join(texts), np.uint8)})


#: What is known of the encoders by name, for those that need nothing besides the prediction.
PLAIN_ENCODERS: dict[str, Any] = {"churn": encode_churn, "timing": encode_timing, "value": encode_value}
