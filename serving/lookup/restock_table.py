"""Categories that a customer is likely to buy again, looked up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from customers.reports import recommendation_reasons
from serving.lookup.answer_table import AnswerTable, Fields
from serving.lookup.question_parser import LookupQuestion
from serving.lookup.score_tables import expected_at
from serving.scoring import restock

DEFAULT_WITHIN_DAYS = 14


class RestockTable(AnswerTable):
    """The categories of each customer, most probable within the requested days first."""

    def build_fields(self, rows: Sequence[int], question: LookupQuestion, now: datetime) -> list[Fields | None]:
        """The field items of each row's result."""
        within_days = question.within_days or DEFAULT_WITHIN_DAYS
        return [{"items": self._build_items(row, within_days, now)} for row in rows]

    def _build_items(self, row: int, within_days: int, now: datetime) -> list[Fields]:
        start, end = self.columns.bounds("items", row)
        p = restock.probability_within(self.columns["items.p"][start:end], within_days).tolist()
        codes, waits, evidence = (
            self.columns[f"items.{name}"][start:end].tolist() for name in ("category", "wait_days", "evidence")
        )
        categories = [self.details["texts"][code] for code in codes]
        as_of, zone = int(self.columns["as_of"][row]), self.shop.zone
        order = sorted(range(end - start), key=lambda index: (-p[index], categories[index]))
        return [
            {
                "category": categories[index],
                "p": p[index],
                "expected_at": expected_at(as_of, int(waits[index]), zone, now)
                if waits[index] == waits[index]
                else None,
                "reason": recommendation_reasons.repeat_reason(*evidence[index]),
            }
            for index in order
        ]
