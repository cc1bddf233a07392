"""Categories that a customer is likely to buy again, looked up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from customers.reports import recommendation_reasons
from serving.arrays.night_arrays import NightArrays
from serving.lookup.answer_table import AnswerTable, Fields, LookupContext, encode_numbers
from serving.lookup.question_parser import LookupQuestion
from serving.lookup.score_tables import expected_at
from serving.scoring import restock
from serving.scoring.fallback import Floats

DEFAULT_WITHIN_DAYS = 14
#: So many different reasons are kept as JSON: the same few numbers of purchases and days come up again and again.
MAX_REASONS = 100_000


class RestockTable(AnswerTable):
    """The categories of each customer, most probable within the requested days first."""

    def __init__(self, arrays: NightArrays, context: LookupContext) -> None:
        super().__init__(arrays, context)
        texts = self.details["texts"]
        self._category_heads = [f'{{"category":{orjson.dumps(text).decode()},"p":' for text in texts]
        self._reasons: dict[bytes, str] = {}
        self.alphabetical_ranks = np.empty(len(texts), np.int64)
        self.alphabetical_ranks[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))

    def build_fields(self, rows: Sequence[int], question: LookupQuestion, now: datetime) -> list[Fields | None]:
        """The field items of each row's result; None for a row with a probability that is not finite."""
        starts, ends = self.columns.all_bounds("items", rows)
        sizes = ends - starts
        first = np.cumsum(sizes) - sizes
        customers = np.repeat(np.arange(len(sizes)), sizes)
        places = np.arange(len(customers)) + (starts - first)[customers]
        p = restock.probability_within(self.columns["items.p"][places], question.within_days or DEFAULT_WITHIN_DAYS)
        codes = self.columns["items.category"][places]
        order = np.lexsort((self.alphabetical_ranks[codes], -p, customers))
        as_of = self.columns["as_of"][list(rows)][customers[order]]
        items = self._build_items(places[order], p[order], as_of, now)
        is_finite = np.bincount(customers, ~np.isfinite(p), len(sizes)) == 0
        return [
            {"items": orjson.Fragment(f"[{','.join(items[start : start + size])}]")} if is_complete else None
            for start, size, is_complete in zip(first.tolist(), sizes.tolist(), is_finite.tolist(), strict=True)
        ]

    def _build_items(
        self, places: NDArray[np.int64], probabilities: Floats, as_of: NDArray[np.int64], now: datetime
    ) -> list[str]:
        """The JSON of the items at these places of the columns, with the expected times."""
        codes, waits, evidence = (
            self.columns[f"items.{name}"][places] for name in ("category", "wait_days", "evidence")
        )
        heads = self._category_heads
        return [
            f"{heads[code]}{p}{expected}{reason}"
            for code, p, expected, reason in zip(
                codes.tolist(),
                encode_numbers(probabilities),
                self._encode_expected(as_of, waits, now),
                self._encode_reasons(evidence),
                strict=True,
            )
        ]

    def _encode_expected(self, as_of: NDArray[np.int64], waits: Floats, now: datetime) -> list[str]:
        """The JSON of the expected time of each item, (n,): few of them differ. NaN: no purchase is expected."""
        days = np.where(np.isnan(waits), -1, waits).astype(np.int64)
        moments, moment_of = np.unique(as_of, return_inverse=True)
        pairs, pair_of = np.unique(moment_of * (restock.MAX_HORIZON_DAYS + 2) + days + 1, return_inverse=True)
        texts = []
        for pair in pairs.tolist():
            moment, wait = divmod(pair, restock.MAX_HORIZON_DAYS + 2)
            at = "null" if wait == 0 else f'"{expected_at(int(moments[moment]), wait - 1, self.shop.zone, now)}"'
            texts.append(f',"expected_at":{at},"reason":')
        return [texts[pair] for pair in pair_of.tolist()]

    def _encode_reasons(self, evidence: NDArray[Any]) -> list[str]:
        """The JSON of each reason, and the end of its item; evidence: (n, 3), found by its bytes."""
        rows = np.ascontiguousarray(evidence)
        contents = rows.view(f"V{rows.itemsize * rows.shape[1]}").ravel().tolist() if len(rows) else []
        if len(self._reasons) > MAX_REASONS:
            self._reasons = {}
        reasons = self._reasons
        for position, content in enumerate(contents):
            if content not in reasons:
                text = recommendation_reasons.repeat_reason(*rows[position].tolist())
                reasons[content] = f"{orjson.dumps(text).decode()}}}"
        return [reasons[content] for content in contents]
