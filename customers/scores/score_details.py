"""Details: what is kept of an answer beside its number, in which shape, and how it is read again.

Churn's number is the probability of no purchase within the horizon. Timing's is the median wait in days, one
day past the curve where that ends first. The recommender's is the score of the best product, that of offers the
chance of the best offer, that of restock the highest chance within 14 days; value's is money.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from serving import because, offering, restocking, scorer
from serving.spending import Worth

Row = tuple[int, float | None, str]


def of_churn(frame: pd.DataFrame, drift: scorer.Drift) -> Iterator[Row]:
    """A row a customer: probability, and {"horizon_days", "band", "reasons", "weights", "rfm", "fallback"}.

    A weight is what its reason adds to the log odds of no purchase: below 0 it speaks for coming back.
    """
    columns = zip(
        frame["customer_key"].tolist(), drift.probability.tolist(), drift.band, drift.reasons, drift.rfm,
        drift.fallback.tolist(), strict=True,
    )  # fmt: skip
    for key, probability, band, reasons, digits, fallback in columns:
        detail = {
            "horizon_days": drift.horizon_days,
            "band": band,
            "reasons": [sentence for sentence, _ in reasons],
            "weights": [round(weight, 2) for _, weight in reasons],
            "rfm": digits,
            "fallback": fallback,
        }
        yield key, probability, _dumps(detail)


def of_timing(frame: pd.DataFrame, back: scorer.Return) -> Iterator[Row]:
    """A row a customer: median wait, and {"p": within days, "days": quantiles, "cdf", "fallback"}."""
    median = back.quantile(0.5).tolist()
    quantiles = days(back)
    rounded = np.round(back.cdf, 6).tolist()
    for row, key in enumerate(frame["customer_key"].tolist()):
        detail = {
            "p": chances(back, row),
            "days": {name: at[row] for name, at in quantiles.items()},
            "cdf": rounded[row],
            "fallback": bool(back.fallback[row]),
        }
        yield key, float(median[row]), _dumps(detail)


def of_lists(shelf: pd.DataFrame, ranked: pd.DataFrame, fallback: scorer.Flags) -> Iterator[Row]:
    """A row a customer: best score, and a list each of "any", "again" and "new", and "fallback".

    An entry of a list is [product_key, score, source, *grounds], best first; `customers.reasons` says what the
    grounds mean, and puts them into words. Who gets nothing has empty lists and no score, in place of older ones.
    """
    columns = ("customer_key", "list", "product_key", "score", "source")
    entries = zip(*(ranked[name].tolist() for name in columns), because.kept(ranked), strict=True)
    listed = {key: list(mine) for key, mine in groupby(entries, key=itemgetter(0))}
    for key, stands_in in zip(shelf["customer_key"].tolist(), fallback.tolist(), strict=True):
        detail: dict[str, Any] = {name: [] for name in scorer.LISTS} | {"fallback": stands_in}
        for _, name, product, score, source, grounds in listed.get(key, ()):
            detail[name].append([product, score, source, *grounds])
        best = max((entry[1] for name in scorer.LISTS for entry in detail[name]), default=None)
        yield key, best, _dumps(detail)


def listed(detail: Mapping[str, Any], name: str) -> Iterator[tuple[int, int, float, str, list[Any]]]:
    """One kept list again: rank, product_key, score, source, grounds."""
    for rank, (product_key, score, source, *grounds) in enumerate(detail[name], start=1):
        yield rank, product_key, score, source, grounds


def chances(back: scorer.Return, row: int) -> dict[int, float | None]:
    """P(purchase within so many days) of one customer; None beyond the curve."""
    length = back.cdf.shape[1]
    cdf = back.cdf[row].tolist()
    return {within: cdf[within - 1] if within <= length else None for within in scorer.WITHIN_DAYS}


def days(back: scorer.Return) -> dict[str, list[int | None]]:
    """Days by which one in ten, half, and nine in ten such customers have come; None beyond the curve."""
    length = back.cdf.shape[1]
    return {
        name: [day if day <= length else None for day in back.quantile(share).tolist()]
        for name, share in scorer.QUANTILES.items()
    }


def of_value(frame: pd.DataFrame, worth: Worth) -> Iterator[Row]:
    """A row a customer: what they are expected to spend, and {"horizon_days", "fallback"}."""
    columns = zip(frame["customer_key"].tolist(), worth.expected.tolist(), worth.fallback.tolist(), strict=True)
    for key, expected, fallback in columns:
        yield key, expected, _dumps({"horizon_days": worth.horizon_days, "fallback": fallback})


def of_restock(frame: pd.DataFrame, needs: pd.DataFrame, fallback: scorer.Flags) -> Iterator[Row]:
    """A row a customer: the highest chance within 14 days, and {"items", "fallback"}.

    An item is [category, p within 7, 14, 28 days, median wait in days or null], likeliest first.
    """
    listed = restocking.entries(needs)
    for key, stands_in in zip(frame["customer_key"].tolist(), fallback.tolist(), strict=True):
        items = listed.get(key, [])
        best = max((item[2] for item in items), default=None)
        yield key, best, _dumps({"items": items, "fallback": stands_in})


def of_offers(frame: pd.DataFrame, ranked: pd.DataFrame, fallback: scorer.Flags) -> Iterator[Row]:
    """A row a customer: the chance of the best offer, None without any, and {"items", "fallback"}.

    An item is [offer_key, chance, expected gain or null, reason], best first; `ranked` has a row each in that order.
    A reason is words, or [product_key, days] for `customers.reasons` to put into words.
    """
    columns = ("customer_key", "offer_key", "p", "expected_gain")
    listed: dict[int, list[list[Any]]] = {}
    kept = offering.reasons_kept(ranked)
    for key, offer, p, gain, reason in zip(*(ranked[name].tolist() for name in columns), kept, strict=True):
        listed.setdefault(key, []).append([offer, p, None if gain != gain else gain, reason])
    for key, stands_in in zip(frame["customer_key"].tolist(), fallback.tolist(), strict=True):
        items = listed.get(key, [])[: scorer.DEEP]
        yield key, items[0][1] if items else None, _dumps({"items": items, "fallback": stands_in})


def _dumps(detail: Mapping[str, Any]) -> str:
    return json.dumps(detail, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
