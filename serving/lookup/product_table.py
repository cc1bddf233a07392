"""Recommended products, looked up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from customers.reports import recommendation_reasons
from customers.scores import score_details
from serving.arrays.night_arrays import NightArrays
from serving.lookup.answer_table import AnswerTable, Fields, LookupContext, load_product_texts
from serving.lookup.question_parser import LookupQuestion
from serving.recommendations import merchandising, short_lists
from serving.scoring.night_columns import NO_EVIDENCE, PRODUCT_SOURCES, SHORTAGE_RULES

DEFAULT_LENGTH = 10
_NAMING_SOURCES = frozenset(recommendation_reasons.RELATED_REASONS)


class ProductTable(AnswerTable):
    """The first products of the requested list of each customer, and why there are fewer than requested."""

    def __init__(self, arrays: NightArrays, context: LookupContext) -> None:
        super().__init__(arrays, context)
        self.ids, self.names = load_product_texts(context, self.details["products"])
        self.sensitive = context.inventory.sensitive_products

    def build_fields(self, rows: Sequence[int], question: LookupQuestion, now: datetime) -> list[Fields | None]:
        """The fields items, short and notes of each row's result."""
        name, n = question.list_name or "any", question.n or DEFAULT_LENGTH
        return [self._build_row(row, name, n) for row in rows]

    def _build_row(self, row: int, name: str, n: int) -> Fields | None:
        start, end = self.columns.bounds(name, row)
        size = end - start
        items = self._build_items(name, start, start + min(n, size))
        if items is None:
            return None
        short = self._build_shortage(row, name, n, size) if size < n else None
        return {"items": items, "short": short, "notes": []}

    def _build_items(self, name: str, start: int, end: int) -> list[Fields] | None:
        keys, scores, sources, evidence, words = (
            self.columns[f"{name}.{column}"][start:end].tolist()
            for column in ("product_key", "score", "source", "evidence", "word")
        )
        items = []
        for rank, (key, score, code, numbers, word) in enumerate(
            zip(keys, scores, sources, evidence, words, strict=True), start=1
        ):
            source = PRODUCT_SOURCES[code]
            product_id = self.ids.get(key)
            if product_id is None or (source in _NAMING_SOURCES and numbers[0] in self.sensitive):
                return None
            reason = self.details["texts"][word] if word != NO_EVIDENCE else self._reason(source, numbers)
            items.append(
                {
                    "rank": rank,
                    "product_id": product_id,
                    "score": score,
                    "source": source,
                    "reason": reason,
                    "expires_at": None,
                }
            )
        return items

    def _reason(self, source: str, numbers: Sequence[int]) -> str:
        evidence = [] if numbers[0] == NO_EVIDENCE else numbers[: 2 if numbers[2] == NO_EVIDENCE else 3]
        return recommendation_reasons.evidence_reason(source, evidence, self.names)

    def _build_shortage(self, row: int, name: str, n: int, size: int) -> Fields:
        bits = int(self.columns["shortage"][row][score_details.LIST_NAMES.index(name)])
        rules = [rule for position, rule in enumerate(SHORTAGE_RULES) if bits >> position & 1]
        excluded = "; ".join(merchandising.EXCLUSION_REASONS[rule] for rule in rules)
        explanation = f"left out: {excluded}" if rules else short_lists.NO_MORE_REASONS[name]
        return {"missing": n - size, "rules": rules, "reason": f"{size} of {n}; {explanation}"}
