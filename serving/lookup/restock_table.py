"""Categories that a customer is likely to buy again, looked up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from customers.reports import recommendation_reasons
from serving.lookup.answer_table import AnswerTable, Fields
from serving.lookup.question_parser import LookupQuestion
from serving.lookup.score_tables import expected_at
from serving.scoring import restock

DEFAULT_WITHIN_DAYS = 14
_NO_PLACES = np.empty(0, np.int64)


class RestockTable(AnswerTable):
    """The categories of each customer, most probable within the requested days first."""

    def build_fields(self, rows: Sequence[int], question: LookupQuestion, now: datetime) -> list[Fields | None]:
        """The field items of each row's result."""
        bounds = [self.columns.bounds("items", row) for row in rows]
        places = np.concatenate([_NO_PLACES, *(np.arange(start, end) for start, end in bounds)])
        items = self._build_items(places, question.within_days or DEFAULT_WITHIN_DAYS)
        as_of = self.columns["as_of"][list(rows)].tolist()
        fields: list[Fields | None] = []
        first = 0
        for (start, end), at in zip(bounds, as_of, strict=True):
            last = first + end - start
            fields.append({"items": self._finish_items(items[first:last], at, now)})
            first = last
        return fields

    def _build_items(self, places: NDArray[np.int64], within_days: int) -> list[tuple[float, str, float, Fields]]:
        """The items at these places of the columns, with what they are sorted by and the median days to a purchase."""
        p = restock.probability_within(self.columns["items.p"][places], within_days).tolist()
        codes, days_until_due, evidence = (
            self.columns[f"items.{name}"][places].tolist() for name in ("category", "wait_days", "evidence")
        )
        texts, repeat_reason = self.details["texts"], recommendation_reasons.repeat_reason
        return [
            (
                -each,
                texts[code],
                days,
                {"category": texts[code], "p": each, "expected_at": None, "reason": repeat_reason(*numbers)},
            )
            for each, code, days, numbers in zip(p, codes, days_until_due, evidence, strict=True)
        ]

    def _finish_items(self, items: list[tuple[float, str, float, Fields]], as_of: int, now: datetime) -> list[Fields]:
        """The items of one customer in their order, with the expected times."""
        zone = self.shop.zone
        for _, _, days, item in items:
            if days == days:
                item["expected_at"] = expected_at(as_of, int(days), zone, now)
        return [item for *_, item in sorted(items, key=itemgetter(0, 1))]
