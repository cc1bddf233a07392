"""Scores customers after a sale on a thread of its own, many at a time, while further sales get their features.

An answer about a queued customer is computed from the newest features, so that it need not wait for this. What shows
stored scores, such as a profile, waits for the customers in it: see `ScoreWriter.wait`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from threading import Condition, Thread

from customers.shop.errors import ShopUnavailable
from features.store.feature_store import StoredRow
from serving import runtime
from serving.http import problems
from serving.runtime import ServerRuntime
from serving.scoring import refresh
from serving.scoring.refresh import RefreshedCustomers

log = logging.getLogger("regulars.refresh")

#: More customers than the first are scored together where so much time passes before: a batch has a fixed cost.
GATHER_SECONDS = 2.0
#: Nobody waits longer for stored scores.
MAX_WAIT_SECONDS = 5.0


class ScoreWriter:
    """Stores the scores of one shop's customers in the order in which they got new features."""

    def __init__(self, server_runtime: ServerRuntime) -> None:
        self.runtime = server_runtime
        #: Customers that are still to be scored: key to `since` of the refresh queue.
        self.unscored: dict[int, int] = {}
        self._rows: dict[str, dict[int, StoredRow]] = {}
        self._changed = Condition()
        self._is_awaited = False
        self._thread: Thread | None = None

    def score(self, _runtime: ServerRuntime, refreshed: RefreshedCustomers) -> None:
        """Score these customers soon."""
        with self._changed:
            self.unscored |= refreshed.since_by_key
            for view, rows in refreshed.written.items():
                self._rows.setdefault(view, {}).update(rows)
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._run, name="score-writer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait(self, keys: Collection[int] | None = None, *, seconds: float = MAX_WAIT_SECONDS) -> bool:
        """Wait until these customers, or all that are to be scored by now, are scored; whether they are."""
        with self._changed:
            awaited = {key: since for key, since in self.unscored.items() if keys is None or key in keys}
            if not awaited:
                return True
            self._is_awaited = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not awaited.items() & self.unscored.items(), seconds)

    def _run(self) -> None:
        while True:
            refreshed = self._gather()
            try:
                self._store(refreshed)
            finally:
                self._forget(refreshed)

    def _gather(self) -> RefreshedCustomers:
        """The next customers to score: at most a batch, those who have waited longest."""
        with self._changed:
            self._changed.wait_for(lambda: self.unscored)
            deadline = time.monotonic() + GATHER_SECONDS
            while not self._is_awaited and len(self.unscored) < refresh.BATCH_SIZE:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            self._is_awaited = False
            since_by_key = dict(list(self.unscored.items())[: refresh.BATCH_SIZE])
            written = {
                view: {key: rows.pop(key) for key in since_by_key if key in rows} for view, rows in self._rows.items()
            }
            return RefreshedCustomers(since_by_key, written)

    def _store(self, refreshed: RefreshedCustomers) -> None:
        """Store the scores of these customers; of several, where that fails, one by one."""
        try:
            refresh.store_scores(self.runtime, refreshed)
        except ShopUnavailable:  # whoever asked for the refresh has said so; it is not these customers
            self.runtime.failed_customer_keys.update(refreshed.since_by_key)
        except Exception as error:
            if len(refreshed.since_by_key) > 1:
                self._store_individually(refreshed)
                return
            log.error("a customer's scores lag behind the books: %s", problems.describe_traceback(error))
            self.runtime.failed_customer_keys.update(refreshed.since_by_key)

    def _store_individually(self, refreshed: RefreshedCustomers) -> None:
        """As `_store`; where so many fail and none succeeds, it is not these customers, and the others wait too."""
        since_by_key, failed = refreshed.since_by_key, self.runtime.failed_customer_keys
        for tried_count, (key, since) in enumerate(since_by_key.items(), start=1):
            written = {view: {key: rows[key]} for view, rows in refreshed.written.items() if key in rows}
            self._store(RefreshedCustomers({key: since}, written))
            if tried_count == refresh.MAX_FAILURES and failed.issuperset(list(since_by_key)[:tried_count]):
                failed.update(since_by_key)
                return

    def _forget(self, refreshed: RefreshedCustomers) -> None:
        """Customers are no longer to be scored, unless they have newer features; who failed is refreshed again."""
        with self._changed:
            for key, since in refreshed.since_by_key.items():
                if self.unscored.get(key) == since:
                    del self.unscored[key]
            self._changed.notify_all()


def get_writer() -> ScoreWriter:
    """The score writer of the shop home that this process serves."""
    return _open_writer(runtime.get_runtime().shop.home)


@lru_cache(maxsize=8)
def _open_writer(_home: Path) -> ScoreWriter:
    return ScoreWriter(runtime.get_runtime())
