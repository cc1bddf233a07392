"""Codec of stored score details: the JSON text that is stored beside the value of each score, per model.

The only place where the keys of that JSON are written or read. `encode_*` yields a ScoreRow per customer;
`decode_*` returns a typed detail. The value beside the detail is: churn, the probability of no purchase within the
horizon; timing, the median days to the next purchase, one day past the curve where it ends first; value, the
expected spend in the shop's currency; recommender, the score of the best product; offers, the redemption
probability of the best offer; restock, the highest probability within 14 days; uplift, the effect of contact.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
#: customer_key, value (None where there is none), detail as JSON text.
ScoreRow = tuple[int, float | None, str]

LIST_NAMES = ("any", "again", "new")
#: Maximum stored length of a list: what campaigns request, with room for exclusions.
MAX_STORED_ITEMS = 50
CDF_DIGITS, WEIGHT_DIGITS = 6, 2
RESTOCK_COLUMNS = ("customer_key", "category", "p_7d", "p_14d", "p_28d", "wait_days")


# Churn ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChurnDetail:
    """Band, reasons and RFM code of a churn score; None for what an older version did not store."""

    horizon_days: int | None = None
    band: str | None = None
    reasons: list[str] | None = None
    #: What each reason adds to the log odds of no purchase; below 0 it makes a purchase likelier.
    weights: list[float] | None = None
    rfm: str | None = None
    fallback: bool | None = None

    def to_fields(self) -> dict[str, Any]:
        """The JSON fields of the HTTP API, in stored order."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in fields.items() if value is not None or name == "rfm"}


def encode_churn(
    keys: Iterable[int],
    probability: Floats,
    *,
    horizon_days: int,
    bands: Sequence[str],
    reasons: Sequence[Sequence[tuple[str, float]]],
    rfm_codes: Sequence[str | None],
    fallback: Flags,
) -> Iterator[ScoreRow]:
    """A row per customer: probability and {"horizon_days", "band", "reasons", "weights", "rfm", "fallback"}.

    probability, fallback: (n,). reasons: per customer, pairs of reason text and weight in log odds.
    """
    columns = zip(keys, probability.tolist(), bands, reasons, rfm_codes, fallback.tolist(), strict=True)
    for key, value, band, customer_reasons, rfm_code, is_fallback in columns:
        detail = {
            "horizon_days": horizon_days,
            "band": band,
            "reasons": [text for text, _ in customer_reasons],
            "weights": [round(weight, WEIGHT_DIGITS) for _, weight in customer_reasons],
            "rfm": rfm_code,
            "fallback": is_fallback,
        }
        yield key, value, _dump(detail)


def decode_churn(text: str | None) -> ChurnDetail:
    """The detail of a churn score."""
    return ChurnDetail(**_load(text, ChurnDetail))


# Timing ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TimingDetail:
    """Distribution of the days to the next purchase; None for what was not stored."""

    #: P(purchase within so many days) by the number of days as text; None beyond the curve.
    p: dict[str, float | None] | None = None
    #: Days by which P(purchase) reaches 0.1, 0.5, 0.9, as "p10", "p50", "p90"; None beyond the curve.
    days: dict[str, int | None] | None = None
    #: P(purchase within d days), d = 1, 2, ...
    cdf: list[float] | None = None
    fallback: bool | None = None

    def probability_within(self, days: int) -> float | None:
        """P(purchase within so many days), one of those stored; None beyond the curve."""
        return (self.p or {}).get(str(days))

    def quantile_days(self, name: str) -> int | None:
        """Days of the quantile "p10", "p50" or "p90"; None beyond the curve."""
        return (self.days or {}).get(name)

    def to_fields(self) -> dict[str, Any]:
        """The JSON fields of the HTTP API, in stored order; without the curve itself."""
        fields = {"p": self.p, "days": self.days, "fallback": self.fallback}
        return {name: value for name, value in fields.items() if value is not None}


def encode_timing(
    keys: Iterable[int],
    cdf: Floats,
    *,
    median_days: NDArray[np.int64],
    probabilities_within: Mapping[int, Sequence[float | None]],
    quantile_days: Mapping[str, Sequence[int | None]],
    fallback: Flags,
) -> Iterator[ScoreRow]:
    """A row per customer: median days and {"p", "days", "cdf", "fallback"}.

    cdf: (n, n_days), P(purchase within d days). median_days, fallback: (n,). probabilities_within and quantile_days:
    by days and by quantile name, a value per customer.
    """
    columns = zip(keys, median_days.tolist(), np.round(cdf, CDF_DIGITS).tolist(), fallback.tolist(), strict=True)
    for row, (key, median, curve, is_fallback) in enumerate(columns):
        detail = {
            "p": {within: values[row] for within, values in probabilities_within.items()},
            "days": {name: values[row] for name, values in quantile_days.items()},
            "cdf": curve,
            "fallback": is_fallback,
        }
        yield key, float(median), _dump(detail)


def decode_timing(text: str | None) -> TimingDetail:
    """The detail of a timing score."""
    return TimingDetail(**_load(text, TimingDetail))


# Value ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ValueDetail:
    """Horizon of an expected spend; None for what was not stored."""

    horizon_days: int | None = None
    fallback: bool | None = None

    def to_fields(self) -> dict[str, Any]:
        """The JSON fields of the HTTP API, in stored order."""
        fields = {"horizon_days": self.horizon_days, "fallback": self.fallback}
        return {name: value for name, value in fields.items() if value is not None}


def encode_value(keys: Iterable[int], expected: Floats, *, horizon_days: int, fallback: Flags) -> Iterator[ScoreRow]:
    """A row per customer: expected spend and {"horizon_days", "fallback"}; expected, fallback: (n,)."""
    for key, value, is_fallback in zip(keys, expected.tolist(), fallback.tolist(), strict=True):
        yield key, value, _dump({"horizon_days": horizon_days, "fallback": is_fallback})


def decode_value(text: str | None) -> ValueDetail:
    """The detail of an expected spend."""
    return ValueDetail(**_load(text, ValueDetail))


# Recommender ----------------------------------------------------------------------------------------------


class StoredProduct(NamedTuple):
    """A product of a stored list; `customers.reports.recommendation_reasons` turns the evidence into a reason."""

    rank: int
    product_key: int
    score: float
    source: str
    evidence: list[Any]


@dataclass(frozen=True, slots=True)
class RecommenderDetail:
    """Ranked products of one customer, by list name."""

    lists: dict[str, list[list[Any]]]
    fallback: bool | None = None

    def iter_products(self, list_name: str) -> Iterator[StoredProduct]:
        """The products of a list, best first; none for a list that was not stored."""
        for rank, (product_key, score, source, *evidence) in enumerate(self.lists.get(list_name) or [], start=1):
            yield StoredProduct(rank, product_key, score, source, evidence)


def encode_recommender(
    keys: Iterable[int], ranked: pd.DataFrame, evidence: Iterable[list[Any]], *, fallback: Flags
) -> Iterator[ScoreRow]:
    """A row per customer: best score and a list each for "any", "again" and "new", and "fallback".

    ranked: columns customer_key, list, product_key, score, source; a row per product, a customer's rows together,
    best first. evidence: of each of these rows, values after the source. fallback: (n,) of `keys`. A customer without
    products gets empty lists and no score, which replace older ones.
    """
    columns = ("customer_key", "list", "product_key", "score", "source")
    entries = zip(*(ranked[name].tolist() for name in columns), evidence, strict=True)
    entries_by_key = {key: list(customer_entries) for key, customer_entries in groupby(entries, key=itemgetter(0))}
    for key, is_fallback in zip(keys, fallback.tolist(), strict=True):
        lists: dict[str, list[list[Any]]] = {name: [] for name in LIST_NAMES}
        for _, name, product_key, score, source, evidence_values in entries_by_key.get(key, ()):
            lists[name].append([product_key, score, source, *evidence_values])
        best = max((entry[1] for entries in lists.values() for entry in entries), default=None)
        yield key, best, _dump(lists | {"fallback": is_fallback})


def decode_recommender(text: str | None) -> RecommenderDetail:
    """The detail of a recommender score."""
    stored = _parse(text)
    return RecommenderDetail({name: stored.get(name) or [] for name in LIST_NAMES}, stored.get("fallback"))


# Offers ---------------------------------------------------------------------------------------------------


class StoredOffer(NamedTuple):
    """An offer of a stored ranking; `reason` is a text or [product_key, days], as `encode_offer_reasons` gives it."""

    offer_key: int
    probability: float
    expected_gain: float | None
    reason: str | list[int]


@dataclass(frozen=True, slots=True)
class OffersDetail:
    """Ranked offers of one customer: [offer_key, probability, expected gain, reason]."""

    items: list[list[Any]]
    fallback: bool | None = None

    def iter_offers(self) -> Iterator[StoredOffer]:
        """The offers, likeliest to be redeemed first."""
        return (StoredOffer(*item) for item in self.items)


def encode_offers(keys: Iterable[int], ranked: pd.DataFrame, *, fallback: Flags) -> Iterator[ScoreRow]:
    """A row per customer: probability of the best offer, None without offers, and {"items", "fallback"}.

    ranked: columns customer_key, offer_key, p, expected_gain (NaN where unknown), reason, evidence_key, days; a row per
    offer, best first. fallback: (n,) of `keys`. An item is [offer_key, p, expected gain or null, reason].
    """
    columns = (ranked[name].tolist() for name in ("customer_key", "offer_key", "p", "expected_gain"))
    items_by_key: dict[int, list[list[Any]]] = {}
    for key, offer_key, p, gain, reason in zip(*columns, encode_offer_reasons(ranked), strict=True):
        items_by_key.setdefault(key, []).append([offer_key, p, None if gain != gain else gain, reason])
    for key, is_fallback in zip(keys, fallback.tolist(), strict=True):
        items = items_by_key.get(key, [])[:MAX_STORED_ITEMS]
        yield key, items[0][1] if items else None, _dump({"items": items, "fallback": is_fallback})


def encode_offer_reasons(ranked: pd.DataFrame) -> list[str | list[int]]:
    """The stored reason of each offer: a text, or the product that it complements and the days since its purchase.

    ranked: columns reason, because (product_key, NaN for none), days. The product is stored by key and named when
    the detail is read: it may become sensitive, or a consent may be revoked.
    """
    entries = zip(ranked["reason"].tolist(), ranked["evidence_key"].tolist(), ranked["days"].tolist(), strict=True)
    return [text if key != key else [int(key), int(days)] for text, key, days in entries]


def decode_offers(text: str | None) -> OffersDetail:
    """The detail of an offers score."""
    stored = _parse(text)
    return OffersDetail(stored.get("items") or [], stored.get("fallback"))


# Restock --------------------------------------------------------------------------------------------------


class StoredReplenishment(NamedTuple):
    """P(purchase) of a category within 7, 14 and 28 days, and the median wait in days, None if beyond 90."""

    category: str
    p_7d: float
    p_14d: float
    p_28d: float
    wait_days: int | None


@dataclass(frozen=True, slots=True)
class RestockDetail:
    """Replenishment categories of one customer: [category, p within 7, 14, 28 days, median wait in days]."""

    items: list[list[Any]]
    fallback: bool | None = None

    def iter_categories(self) -> Iterator[StoredReplenishment]:
        """The categories, likeliest within 14 days first."""
        return (StoredReplenishment(*item) for item in self.items)


def encode_restock(keys: Iterable[int], items: pd.DataFrame, *, fallback: Flags) -> Iterator[ScoreRow]:
    """A row per customer: the highest probability within 14 days, None without categories, and {"items", "fallback"}.

    items: columns RESTOCK_COLUMNS, wait_days NaN where unknown; a row per category, likeliest first. fallback: (n,)
    of `keys`. An item is [category, p within 7, 14 and 28 days, median wait in days or null].
    """
    items_by_key: dict[int, list[list[Any]]] = {}
    for key, category, p7, p14, p28, days in zip(*(items[name].tolist() for name in RESTOCK_COLUMNS), strict=True):
        items_by_key.setdefault(key, []).append([category, p7, p14, p28, None if days != days else int(days)])
    for key, is_fallback in zip(keys, fallback.tolist(), strict=True):
        customer_items = items_by_key.get(key, [])
        best = max((item[2] for item in customer_items), default=None)
        yield key, best, _dump({"items": customer_items, "fallback": is_fallback})


def decode_restock(text: str | None) -> RestockDetail:
    """The detail of a restock score."""
    stored = _parse(text)
    return RestockDetail(stored.get("items") or [], stored.get("fallback"))


# Uplift ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UpliftDetail:
    """Outcome that contact raises, "return" or "spend", and within how many days; None for what was not stored."""

    outcome: str | None = None
    days: int | None = None


def encode_uplift(effects: Iterable[tuple[int, float]], *, outcome: str | None, days: int) -> Iterator[ScoreRow]:
    """A row per pair of customer key and effect: the effect and {"outcome", "days"}."""
    detail = json.dumps({"outcome": outcome, "days": days})
    return ((key, effect, detail) for key, effect in effects)


def decode_uplift(text: str | None) -> UpliftDetail:
    """The detail of an uplift score."""
    return UpliftDetail(**_load(text, UpliftDetail))


DECODERS: dict[str, Callable[[str | None], Any]] = {
    "churn": decode_churn,
    "timing": decode_timing,
    "value": decode_value,
    "recommender": decode_recommender,
    "offers": decode_offers,
    "restock": decode_restock,
    "uplift": decode_uplift,
}


def _dump(detail: Mapping[str, Any]) -> str:
    return json.dumps(detail, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _parse(text: str | None) -> dict[str, Any]:
    return dict(json.loads(text or "{}"))


def _load(text: str | None, detail_type: Any) -> dict[str, Any]:
    """The stored fields that the detail type has."""
    stored = _parse(text)
    return {name: stored[name] for name in detail_type.__dataclass_fields__ if name in stored}
