"""Recommended products, looked up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import orjson
from numpy.typing import NDArray

from customers.reports import recommendation_reasons
from customers.scores import score_details
from serving.arrays.night_arrays import NightArrays
from serving.lookup.answer_table import AnswerTable, Fields, LookupContext, encode_numbers, load_product_texts
from serving.lookup.question_parser import LookupQuestion
from serving.recommendations import merchandising, short_lists
from serving.scoring.night_columns import NO_EVIDENCE, PRODUCT_SOURCES, SHORTAGE_RULES

DEFAULT_LENGTH = 10
#: So many different reasons are kept as JSON: the same numbers of purchases and days come up again and again.
MAX_REASONS = 100_000
_NAMING_SOURCES = frozenset(recommendation_reasons.RELATED_REASONS)


class ProductTable(AnswerTable):
    """The first products of the requested list of each customer, and why there are fewer than requested."""

    def __init__(self, arrays: NightArrays, context: LookupContext) -> None:
        super().__init__(arrays, context)
        self.ids, self.names = load_product_texts(context, self.details["products"])
        self.sensitive = context.inventory.sensitive_products
        self._product_texts = {key: _to_json(product_id) for key, product_id in self.ids.items()}
        self._endings: dict[bytes, str | None] = {}

    def build_fields(self, rows: Sequence[int], question: LookupQuestion, now: datetime) -> list[Fields | None]:
        """The fields items, short and notes of each row's result."""
        name, n = question.list_name or "any", question.n or DEFAULT_LENGTH
        starts, ends = self.columns.all_bounds(name, rows)
        sizes = ends - starts
        lengths = np.minimum(n, sizes)
        items = self._encode_items(name, starts, lengths)
        fields: list[Fields | None] = []
        first = 0
        for row, size, length in zip(rows, sizes.tolist(), lengths.tolist(), strict=True):
            own_items, first = items[first : first + length], first + length
            if None in own_items:
                fields.append(None)
                continue
            short = self._build_shortage(row, name, n, size) if length < n else None
            fields.append({"items": _join_items(own_items), "short": short, "notes": []})
        return fields

    def _encode_items(self, name: str, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[str | None]:
        """The JSON of the first items of each list, one list after the other; None for one that must be computed.

        starts, lengths: of each list, (n_rows,).
        """
        ranks = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        places = np.repeat(starts, lengths) + ranks
        keys = self.columns[f"{name}.product_key"][places].tolist()
        scores = encode_numbers(self.columns[f"{name}.score"][places])
        heads = [f'{{"rank":{rank},"product_id":' for rank in range(1, int(lengths.max(initial=0)) + 1)]
        ranked_heads = [heads[rank] for rank in ranks.tolist()]
        product_texts, endings = self._product_texts, self._find_endings(name, places)
        return [
            None
            if ending is None or score is None or key not in product_texts
            else f'{head}{product_texts[key]},"score":{score}{ending}'
            for head, key, score, ending in zip(ranked_heads, keys, scores, endings, strict=True)
        ]

    def _find_endings(self, name: str, places: NDArray[np.int64]) -> list[str | None]:
        """The JSON of the items at these places after their scores; None for one that must be computed.

        The same sources and numbers come up again and again: they are found by their bytes.
        """
        if not len(places):
            return []
        sources, evidence, words = (
            np.ascontiguousarray(self.columns[f"{name}.{column}"][places]) for column in ("source", "evidence", "word")
        )
        parts = [values.view(np.uint8).reshape(len(places), -1) for values in (sources, evidence, words)]
        packed = np.concatenate(parts, axis=1)
        contents = packed.view(f"V{packed.shape[1]}").ravel().tolist()
        if len(self._endings) > MAX_REASONS:
            self._endings = {}
        endings = self._endings
        for position, content in enumerate(contents):
            if content not in endings:
                numbers = evidence[position].tolist()
                endings[content] = self._end_item(int(sources[position]), numbers, int(words[position]))
        return [endings[content] for content in contents]

    def _end_item(self, code: int, numbers: Sequence[int], word: int) -> str | None:
        """The JSON of an item after its score; None where the reason would name a sensitive product."""
        source = PRODUCT_SOURCES[code]
        if source in _NAMING_SOURCES and numbers[0] in self.sensitive:
            return None
        reason = self.details["texts"][word] if word != NO_EVIDENCE else self._reason(source, numbers)
        return f',"source":"{source}","reason":{_to_json(reason)},"expires_at":null}}'

    def _reason(self, source: str, numbers: Sequence[int]) -> str:
        evidence = [] if numbers[0] == NO_EVIDENCE else numbers[: 2 if numbers[2] == NO_EVIDENCE else 3]
        return recommendation_reasons.evidence_reason(source, evidence, self.names)

    def _build_shortage(self, row: int, name: str, n: int, size: int) -> Fields:
        bits = int(self.columns["shortage"][row][score_details.LIST_NAMES.index(name)])
        rules = [rule for position, rule in enumerate(SHORTAGE_RULES) if bits >> position & 1]
        excluded = "; ".join(merchandising.EXCLUSION_REASONS[rule] for rule in rules)
        explanation = f"left out: {excluded}" if rules else short_lists.NO_MORE_REASONS[name]
        return {"missing": n - size, "rules": rules, "reason": f"{size} of {n}; {explanation}"}


def _to_json(text: str) -> str:
    return orjson.dumps(text).decode()


def _join_items(items: Sequence[str | None]) -> orjson.Fragment:
    return orjson.Fragment(f"[{','.join(filter(None, items))}]")
