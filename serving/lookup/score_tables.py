"""Churn, next purchase and value, looked up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

import orjson

from customers import clock
from customers.shop import timestamps
from serving.lookup.answer_table import AnswerTable, Fields, format_instant
from serving.lookup.question_parser import LookupQuestion
from serving.scoring import timing, value
from serving.scoring.night_columns import BANDS, NO_DAYS


class ChurnTable(AnswerTable):
    """Probability, horizon, band and reasons."""

    def build_fields(self, rows: Sequence[int], question: LookupQuestion, now: datetime) -> list[Fields | None]:
        """The fields of each row's result."""
        positions, text, horizon_days = list(rows), self.columns["reasons.text"], self.details["horizon_days"]
        probability = self.columns["probability"][positions].tolist()
        bands = self.columns["band"][positions].tolist()
        fields: list[Fields | None] = []
        for row, each, band in zip(positions, probability, bands, strict=True):
            start, end = self.columns.bounds("reasons", row)
            reasons = orjson.Fragment(text[start:end].tobytes())
            fields.append({"probability": each, "horizon_days": horizon_days, "band": BANDS[band], "reasons": reasons})
        return fields


class NextPurchaseTable(AnswerTable):
    """Probabilities within some days, quantiles of the days, and the expected time."""

    def build_fields(self, rows: Sequence[int], question: LookupQuestion, now: datetime) -> list[Fields | None]:
        """The fields of each row's result."""
        positions, zone = list(rows), self.shop.zone
        windows, quantiles = [str(days) for days in timing.WITHIN_DAYS], [*timing.QUANTILES]
        median = quantiles.index("p50")
        as_of = self.columns["as_of"][positions].tolist()
        fields: list[Fields | None] = []
        for p, days, at in zip(
            self.columns["p"][positions].tolist(), self.columns["days"][positions].tolist(), as_of, strict=True
        ):
            fields.append(
                {
                    "p": {name: each if each == each else None for name, each in zip(windows, p, strict=True)},
                    "days": {
                        name: None if each == NO_DAYS else each for name, each in zip(quantiles, days, strict=True)
                    },
                    "expected_at": None if days[median] == NO_DAYS else expected_at(at, days[median], zone, now),
                }
            )
        return fields


class ValueTable(AnswerTable):
    """Expected spend within the horizon."""

    def build_fields(self, rows: Sequence[int], question: LookupQuestion, now: datetime) -> list[Fields | None]:
        """The fields of each row's result."""
        currency, horizon_days = self.shop.currency, self.details["horizon_days"]
        return [
            {"expected": value.format_amount(each, currency), "currency": currency, "horizon_days": horizon_days}
            for each in self.columns["expected"][list(rows)].tolist()
        ]


def expected_at(as_of_micros: int, days: int, zone: ZoneInfo, now: datetime) -> str:
    """When a purchase is as likely as not, as `clock.expected_purchase_at`, never before now; as responses write it."""
    at, text = _expected_at(as_of_micros, days, zone)
    return format_instant(now) if at < now else text


@lru_cache(maxsize=10_000)
def _expected_at(as_of_micros: int, days: int, zone: ZoneInfo) -> tuple[datetime, str]:
    as_of = timestamps.from_micros(as_of_micros)
    at = clock.expected_purchase_at(as_of, days, zone, now=timestamps.EPOCH)
    return at, format_instant(at)
