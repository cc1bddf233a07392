"""Categories that a customer is likely to buy again, looked up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

import numpy as np
import orjson
from numpy.typing import NDArray

from customers.reports import recommendation_reasons
from serving.arrays.night_arrays import NightArrays
from serving.lookup.answer_table import AnswerTable, Fields, LookupContext
from serving.lookup.question_parser import LookupQuestion
from serving.lookup.score_tables import expected_at
from serving.scoring import restock

DEFAULT_WITHIN_DAYS = 14
_NO_PLACES = np.empty(0, np.int64)


class RestockTable(AnswerTable):
    """The categories of each customer, most probable within the requested days first."""

    def __init__(self, arrays: NightArrays, context: LookupContext) -> None:
        super().__init__(arrays, context)
        texts = self.details["texts"]
        self._category_texts = [orjson.dumps(text).decode() for text in texts]
        self.alphabetical_ranks = np.empty(len(texts), np.int64)
        self.alphabetical_ranks[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))

    def build_fields(self, rows: Sequence[int], question: LookupQuestion, now: datetime) -> list[Fields | None]:
        """The field items of each row's result."""
        bounds = [self.columns.bounds("items", row) for row in rows]
        places = np.concatenate([_NO_PLACES, *(np.arange(start, end) for start, end in bounds)])
        sizes = np.array([end - start for start, end in bounds], np.int64)
        customers = np.repeat(np.arange(len(sizes)), sizes)
        p = restock.probability_within(self.columns["items.p"][places], question.within_days or DEFAULT_WITHIN_DAYS)
        codes = self.columns["items.category"][places]
        order = np.lexsort((self.alphabetical_ranks[codes], -p, customers))
        as_of = self.columns["as_of"][list(rows)][customers[order]]
        items = self._build_items(places[order], p[order].tolist(), as_of.tolist(), now)
        ends = np.cumsum(sizes).tolist()
        return [
            {"items": orjson.Fragment(f"[{','.join(items[start:end])}]")}
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]

    def _build_items(
        self, places: NDArray[np.int64], probabilities: list[float], as_of: list[int], now: datetime
    ) -> list[str]:
        """The JSON of the items at these places of the columns, with the expected times."""
        codes, waits, evidence = (
            self.columns[f"items.{name}"][places].tolist() for name in ("category", "wait_days", "evidence")
        )
        texts, zone = self._category_texts, self.shop.zone
        # NaN, which is not equal to itself, stands for a purchase that is not to be expected.
        expected_texts = [
            f'"{expected_at(at, int(days), zone, now)}"' if days == days else "null"
            for at, days in zip(as_of, waits, strict=True)
        ]
        return [
            f'{{"category":{texts[code]},"p":{p!r},"expected_at":{expected},"reason":{_encode_reason(*numbers)}}}'
            for code, p, expected, numbers in zip(codes, probabilities, expected_texts, evidence, strict=True)
        ]


@lru_cache(maxsize=100_000)
def _encode_reason(times: float, last_days: float, first_days: float) -> str:
    """The reason as JSON; the same few numbers of purchases and days come up again and again."""
    return orjson.dumps(recommendation_reasons.repeat_reason(times, last_days, first_days)).decode()
