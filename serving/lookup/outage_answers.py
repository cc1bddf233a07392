"""Answers while the customer database does not answer: of the night's arrays, by what this worker has last read.

A thread follows the database as long as it answers: the ids of all customers, their consent statements, who has changed
since the night, the catalogue, and which API keys are valid. A customer whose consents are not those of the night gets
the average of all customers, as an unknown one does. Offers are made only to customers without any later
record, and to nobody once sales or interactions have been loaded from a file since the night.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Thread
from typing import Any, NamedTuple

from customers.database import direct_reads
from customers.scores.current_scores import CustomerStatus
from customers.scores.customer_index import CustomerIndex
from customers.security import api_keys
from customers.shop import timestamps
from customers.shop.errors import ShopUnavailable
from serving.http import authentication, problems
from serving.http.problems import Problem
from serving.http.request_context import Degradation
from serving.lookup.answer_table import AnswerTable, Fields, format_instant
from serving.lookup.catalogue_state import CatalogueState
from serving.lookup.question_parser import LookupQuestion
from serving.lookup.shop_state import ShopState

log = logging.getLogger("regulars.lookup")

#: The first answers of a worker must not wait for this.
FOLLOW_AFTER_SECONDS = 3.0
#: How often the database is followed, and how often what seldom changes is read again without a commit.
FOLLOW_SECONDS, REPEAT_SECONDS = 1.0, 60.0
#: How often the averages are computed again at most.
AVERAGES_SECONDS = 300.0
#: The catalogue is read in at most this share of the time, where many commits change it and nobody asks.
CATALOGUE_SHARE = 0.1
#: The questions whose averages are computed, with their parameters; lists are cut to the requested length.
_AVERAGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("churn", {}),
    ("next-purchase", {}),
    ("value", {}),
    *(("recommendations", {"list": name, "n": 50}) for name in ("any", "again", "new")),
)
_COMMON_FIELDS = ("customer_id", "known", "fallback", "features_as_of")
NO_OFFERS = "which offers this customer may get cannot be checked while the customer database does not answer"

#: The fields of the result of an unknown customer, from the question, a customer id and the parameters.
AverageReader = Callable[[str, str, dict[str, Any]], Fields]


class OutageResults(NamedTuple):
    """The results of a question in the order of its customers, what they were made of, and why they are not better."""

    catalogue: CatalogueState
    results: list[Fields]
    now: datetime
    degradation: Degradation


@dataclass
class _LastRead:
    """What was read at which version of the database, by the real clock."""

    keys_version: Hashable = None
    keys_at: float = float("-inf")
    version: Hashable = None
    at: datetime | None = None
    repeated_at: float = float("-inf")
    averages_at: float = float("-inf")
    averages_of: Mapping[str, str] = field(default_factory=dict)
    catalogue_at: datetime | None = None
    catalogue_after: float = float("-inf")


class OutageAnswers:
    """What one worker can answer about the customers of a shop without its database."""

    def __init__(self, state: ShopState, read_average: AverageReader) -> None:
        self.state = state
        self._shop = state.runtime.shop
        self._reader = direct_reads.get_reader(self._shop)
        self._index = CustomerIndex(self._shop)
        self._read_average = read_average
        self._averages: dict[tuple[str, str | None], Fields] = {}
        self._roles: dict[bytes, str] = {}
        self._last = _LastRead()

    @property
    def read_at(self) -> datetime | None:
        """As of when everything is known, the catalogue too, by the real clock; None where nothing was read yet."""
        last = self._last
        return min(last.at, last.catalogue_at) if last.at and last.catalogue_at else None

    def start(self) -> None:
        """Follow the database from now on; the thread ends with the process."""
        Thread(target=self._follow_forever, daemon=True, name="customer index").start()

    def _follow_forever(self) -> None:
        time.sleep(FOLLOW_AFTER_SECONDS)
        while True:
            try:
                self.follow()
            except ShopUnavailable:
                pass
            except Exception as error:  # what was read last is still there
                log.error("the state of the shop cannot be followed: %s", problems.describe_traceback(error))
            time.sleep(FOLLOW_SECONDS)

    def follow(self) -> None:
        """Read what has changed since the last call. Raises ShopUnavailable where the database does not answer."""
        last, began_at, version = self._last, datetime.now(UTC), self._reader.read_version()
        self._follow_keys(version)
        catalogue = self._follow_catalogue(version, began_at)
        tables = catalogue.tables if catalogue else {}
        if not tables:
            return
        now = time.monotonic()
        if version != last.version or now - last.repeated_at >= REPEAT_SECONDS:
            table = tables.get("offers") or next(iter(tables.values()))
            self._index.follow(table.arrays.facts.watermark)
            last.version, last.repeated_at = version, now
        last.at = began_at
        champions = {name: str(each.version) for name, each in catalogue.champions.items()} if catalogue else {}
        if champions != last.averages_of or now - last.averages_at >= AVERAGES_SECONDS:
            self._compute_averages()
            last.averages_at, last.averages_of = now, champions

    def _follow_keys(self, version: Hashable) -> None:
        """Forget revoked keys before anything else is read, which may take long or fail."""
        last, now = self._last, time.monotonic()
        if version != last.keys_version or now - last.keys_at >= REPEAT_SECONDS:
            self._roles = api_keys.load_roles(self._shop)
            last.keys_version, last.keys_at = version, now
        authentication.confirm_keys(self._shop, self._roles)

    def _follow_catalogue(self, version: Hashable, at: datetime) -> CatalogueState | None:
        state, began_at = self.state, time.monotonic()
        state.notice_commits(version)
        if state.get_catalogue() is None and began_at >= self._last.catalogue_after:
            state.refresh()
            took_seconds = time.monotonic() - began_at
            self._last.catalogue_after = began_at + took_seconds / CATALOGUE_SHARE
        if state.get_catalogue() is not None:
            self._last.catalogue_at = at
        return state.last_catalogue

    def _compute_averages(self) -> None:
        unknown_id = f"nobody-{secrets.token_hex(16)}"
        for name, parameters in _AVERAGES:
            try:
                result = self._read_average(name, unknown_id, parameters)
            except Problem:  # its model has no champion
                continue
            fields = {field: value for field, value in result.items() if field not in _COMMON_FIELDS}
            self._averages[name, parameters.get("list")] = fields

    def find_results(self, question: LookupQuestion) -> OutageResults | None:
        """The results of a question, all of what was last read; None where this worker has not read enough."""
        catalogue, read_at = self.state.last_catalogue, self.read_at
        table = catalogue.tables.get(question.model) if catalogue else None
        if catalogue is None or table is None or read_at is None:
            return None
        now = self.state.last_now
        names = question.customer_ids
        statuses = self._index.find_statuses(names)
        results = self._look_up(table, question, statuses, now)
        average = self._find_average(question)
        if average is None and None in results:
            return None
        complete = [
            {
                "customer_id": name,
                "known": status is not None,
                "fallback": True,
                "features_as_of": None,
                **(average or {}),
            }
            if result is None
            else result
            for name, status, result in zip(names, statuses, results, strict=True)
        ]
        return OutageResults(catalogue, complete, now, _describe_outage(table, read_at, now))

    def _look_up(
        self, table: AnswerTable, question: LookupQuestion, statuses: Sequence[CustomerStatus | None], now: datetime
    ) -> list[Fields | None]:
        """The result of each customer of whom the night's answer may be given; None for the others."""
        results: list[Fields | None] = [None] * len(statuses)
        needs_present = question.name == "offers"
        if needs_present and table.arrays.facts.details.get("load_count") != self.state.last_load_count:
            return results  # whose records a file has changed is not known
        counts = table.columns["consent_count"]
        rows = table.arrays.find_rows([-1 if each is None else each.customer_key for each in statuses])
        chosen = [
            (position, row)
            for position, (row, status) in enumerate(zip(rows, statuses, strict=True))
            if row >= 0
            and status is not None
            and counts[row] == status.consent_count
            and not (needs_present and status.is_changed)
        ]
        if chosen:
            positions, rows = map(list, zip(*chosen, strict=True))
            names = [question.customer_ids[position] for position in positions]
            for position, result in zip(positions, table.build_results(names, rows, question, now), strict=True):
                results[position] = result
        return results

    def _find_average(self, question: LookupQuestion) -> Fields | None:
        """The fields of a result, besides those that all have, for a customer of whom nothing may be used."""
        if question.name == "offers":
            return {"items": [], "dropped": [], "dropped_count": 0, "nothing": NO_OFFERS}
        if question.name == "restock":
            return {"items": []}
        is_list = question.name == "recommendations"
        average = self._averages.get((question.name, (question.list_name or "any") if is_list else None))
        return _cut_list(average, question.n or 10) if is_list and average else average


def _cut_list(average: Fields, n: int) -> Fields:
    """The average list with at most n items; where it is shorter, with the reason for that."""
    items, short = average["items"], average["short"]
    if len(items) >= n or short is None:
        return {**average, "items": items[:n], "short": None}
    explanation = short["reason"].partition("; ")[2]
    reason = f"{len(items)} of {n}; {explanation}"
    return {**average, "short": {**short, "missing": n - len(items), "reason": reason}}


def _describe_outage(table: AnswerTable, read_at: datetime, now: datetime) -> Degradation:
    as_of = table.arrays.facts.as_of.astimezone(UTC)
    at = format_instant(timestamps.from_micros(timestamps.to_micros(read_at)).replace(microsecond=0))
    reason = f"the customer database does not answer: scores are those of the last night, the rest is as of {at}"
    return Degradation(reason, as_of, max(0.0, (now - as_of).total_seconds()))
