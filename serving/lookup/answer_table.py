"""What all answer tables share: the columns of a night, and the fields that every result begins with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from customers.catalogue import products
from customers.marketing.offer_table import OfferTable
from customers.shop import timestamps
from serving.arrays.night_arrays import NightArrays
from serving.lookup.question_parser import LookupQuestion
from serving.offers.offer_inventory import OfferInventory
from serving.runtime import ServerRuntime

Fields = dict[str, Any]


@dataclass(frozen=True)
class LookupContext:
    """The shop, and its catalogue as it is now; the offer table has the budgets that are spent."""

    runtime: ServerRuntime
    inventory: OfferInventory
    offer_table: OfferTable


class AnswerTable(ABC):
    """Answers one question about the customers of a night, from its columns."""

    def __init__(self, arrays: NightArrays, context: LookupContext) -> None:
        self.arrays = arrays
        self.columns = arrays.columns
        self.details = arrays.facts.details
        self.context = context
        self.shop = context.runtime.shop

    @abstractmethod
    def build_fields(self, rows: Sequence[int], question: LookupQuestion, now: datetime) -> list[Fields | None]:
        """The fields of each row's result after the common ones; None where the answer must be computed."""

    def build_results(
        self, customer_ids: Sequence[str], rows: Sequence[int], question: LookupQuestion, now: datetime
    ) -> list[Fields | None]:
        """The results of these customers, in their order; None where one must be computed."""
        positions = list(rows)
        as_of, fallback = self.columns["as_of"][positions].tolist(), self.columns["fallback"][positions].tolist()
        fields_by_row = self.build_fields(rows, question, now)
        return [
            None
            if fields is None
            else {
                "customer_id": name,
                "known": True,
                "fallback": is_fallback,
                "features_as_of": format_micros(at),
                **fields,
            }
            for name, at, is_fallback, fields in zip(customer_ids, as_of, fallback, fields_by_row, strict=True)
        ]


@lru_cache(maxsize=10_000)
def format_micros(micros: int) -> str:
    """An instant as responses write it: 2018-01-01T05:00:00Z, with microseconds where there are any."""
    return format_instant(timestamps.from_micros(micros))


def format_instant(at: datetime) -> str:
    """As `format_micros`, of a time in UTC."""
    return at.isoformat().replace("+00:00", "Z")


def encode_numbers(values: NDArray[np.floating[Any]]) -> list[str | None]:
    """The JSON of each number, (n,); None for NaN or an infinity, which JSON does not have."""
    if not len(values):
        return []
    array = orjson.dumps(np.ascontiguousarray(values, np.float64), option=orjson.OPT_SERIALIZE_NUMPY)
    texts: list[str | None] = [*array[1:-1].decode().split(",")]
    for position in np.flatnonzero(~np.isfinite(values)).tolist():
        texts[position] = None
    return texts


def load_product_texts(context: LookupContext, keys: Sequence[int]) -> tuple[dict[int, str], dict[int, str]]:
    """The ids and the display names of these products, as they are now."""
    shop = context.runtime.shop
    return products.find_ids(shop, keys), products.load_display_names(shop, keys)
