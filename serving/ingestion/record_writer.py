"""Stores posted records and refreshes their customers, several requests together where they arrive together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from customers.ledger import refresh_queue
from customers.loading import load
from customers.loading.load import IngestResult
from customers.people import lookup
from customers.shop.settings import Shop
from serving import runtime
from serving.http import problems
from serving.http.problems import Problem
from serving.ingestion import score_writer
from serving.ingestion.group_commit import GroupCommit
from serving.runtime import ServerRuntime
from serving.scoring import refresh

log = logging.getLogger("regulars.ingestion")

#: Records of these kinds are about customers whose features they change.
QUEUED_KINDS = frozenset({"transactions", "interactions"})
#: With more customers in the refresh queue, further records are refused until it is shorter.
MAX_BACKLOG = 1_000
RETRY_AFTER_SECONDS = 5


@dataclass(frozen=True)
class PostedRecords:
    """The records of one request."""

    kind: str
    source: str
    records: Sequence[Any]


class RecordWriter:
    """Writes the records of one shop's requests. A record is committed before its request is answered."""

    def __init__(self, server_runtime: ServerRuntime) -> None:
        self.runtime = server_runtime
        self._storing = GroupCommit(self._store_group)
        self._refreshing = GroupCommit(self._refresh_group)

    def check_backlog(self, kind: str) -> None:
        """Raise Problem (429) where more customers wait for their refresh than a refresh can keep up with.

        A refusal first joins a refresh of those who have waited longest, so that the queue gets shorter. Before the
        first nightly run nothing can be refreshed, and nothing is refused.
        """
        if kind not in QUEUED_KINDS or refresh_queue.count_pending(self.runtime.shop) < MAX_BACKLOG:
            return
        if not self.runtime.has_computed_features:
            return
        # Without a refresh, a queue that was filled while a store was away would refuse records for ever.
        self._refreshing.submit(())
        score_writer.get_writer().wait()
        if refresh_queue.count_pending(self.runtime.shop) >= MAX_BACKLOG:
            raise Problem(
                429,
                f"More than {MAX_BACKLOG:,} customers wait for their new scores; nothing of this request is stored.",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )

    def store(self, posted: PostedRecords) -> IngestResult:
        """Commit the records of a request, with those of others that arrive at the same time."""
        result = self._storing.submit(posted)
        if isinstance(result, Exception):
            raise result
        return result

    def refresh(self, posted: PostedRecords, result: IngestResult) -> bool:
        """Give the customers of stored records new features; whether all answers about them include the records now."""
        unrefreshed = self._refreshing.submit(result.customer_keys)
        if unrefreshed is None:
            return False
        return not unrefreshed or unrefreshed.isdisjoint(self._own_customers(posted, result))

    def _own_customers(self, posted: PostedRecords, result: IngestResult) -> set[int]:
        """The changed customers of this request alone; the result may name those of its whole group."""
        ids = {record.get("customer_id") for record in posted.records if isinstance(record, dict)}
        names = [f"{posted.source}:{customer_id}" for customer_id in ids if customer_id]
        own_keys = set(lookup.find_keys(self.runtime.shop, names).values())
        return own_keys & set(result.customer_keys) if own_keys else set(result.customer_keys)

    def _store_group(self, group: Sequence[PostedRecords]) -> list[IngestResult | Exception]:
        results: list[IngestResult | Exception | None] = [None] * len(group)
        for kind, source in {(posted.kind, posted.source) for posted in group if posted.kind == "transactions"}:
            positions = [at for at, posted in enumerate(group) if (posted.kind, posted.source) == (kind, source)]
            if len(positions) > 1:
                requests = [group[at].records for at in positions]
                for at, stored in zip(positions, self._ingest_together(kind, source, requests), strict=False):
                    results[at] = stored
        return [
            result if result is not None else _ingest(self.runtime.shop, posted)
            for result, posted in zip(results, group, strict=True)
        ]

    def _ingest_together(self, kind: str, source: str, requests: Sequence[Sequence[Any]]) -> list[IngestResult]:
        """The result of each request; none where one of them fails, so that each is then stored by itself."""
        try:
            return load.ingest_together(self.runtime.shop, kind, requests, source=source) or []
        except Exception as error:
            log.warning("requests are stored one by one: %s", problems.describe_traceback(error))
            return []

    def _refresh_group(self, group: Sequence[Sequence[int]]) -> list[set[int] | None]:
        keys = {key for customer_keys in group for key in customer_keys}
        unrefreshed = refresh.find_unrefreshed(self.runtime, keys, scorer=score_writer.get_writer())
        return [unrefreshed] * len(group)


def _ingest(shop: Shop, posted: PostedRecords) -> IngestResult | Exception:
    """The result of one request by itself; its error is its own, not that of the group."""
    try:
        return load.ingest_records(shop, posted.kind, posted.records, source=posted.source)
    except Exception as error:
        return error


def get_writer() -> RecordWriter:
    """The record writer of the shop home that this process serves."""
    return _open_writer(runtime.get_runtime().shop.home)


@lru_cache(maxsize=8)
def _open_writer(_home: Path) -> RecordWriter:
    return RecordWriter(runtime.get_runtime())
