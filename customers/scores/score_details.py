"""Details: what is kept of an answer beside its number, in which shape, and how it is read again.

Churn's number is the probability of no purchase within the horizon. Timing's is the median wait in days, one
day past the curve where that ends first. The recommender's is the score of the best product, that of offers the
chance of the best offer, that of restock the highest chance within 14 days; value's is money.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

ScoreRow = tuple[int, float | None, str]


def iter_list(detail: Mapping[str, Any], name: str) -> Iterator[tuple[int, int, float, str, list[Any]]]:
    """One kept list again: rank, product_key, score, source, grounds."""
    for rank, (product_key, score, source, *evidence_values) in enumerate(detail[name], start=1):
        yield rank, product_key, score, source, evidence_values


def dump_detail(detail: Mapping[str, Any]) -> str:
    return json.dumps(detail, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


LIST_NAMES = ("any", "again", "new")
#: Lists are kept this deep: what campaigns ask for, with room for exclusions.
MAX_STORED_ITEMS = 50
