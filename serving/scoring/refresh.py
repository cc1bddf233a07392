"""Event refresh: recompute the features of customers with new records, before the next request, and rescore them.

The records are in the ledger already. Features are computed by the same expressions as at night and pushed to the
online store: from then on every answer about these customers is of them. Then the champions' new scores are stored.
Customers stay in the refresh queue until both has succeeded.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from customers.database import shop_lock
from customers.ledger import refresh_queue
from customers.parquet import mirror
from customers.scores import score_store
from customers.shop.settings import Shop
from customers.shop.timestamps import ONE_MICROSECOND, to_micros
from features.store.feature_store import WrittenRows
from serving.http import problems
from serving.runtime import ServerRuntime
from serving.scoring import online

log = logging.getLogger("regulars.refresh")

#: Customers refreshed together: a request with a thousand sales takes a few short batches.
BATCH_SIZE = 200
#: Customers queued for longer are refreshed beside the requested ones; before, the worker that has queued them does it.
OTHERS_AFTER = timedelta(seconds=5)
#: Where refresh fails for this many customers and succeeds for none, the cause is not the customers: stop.
MAX_FAILURES = 10
#: Tables whose Parquet copies are read when features are computed, online as well as at night.
MIRRORED_TABLES = ("products", "consents")


@dataclass(frozen=True)
class RefreshedCustomers:
    """Customers whose new features are in the online store: key to `since` of the queue, and the rows written."""

    since_by_key: Mapping[int, int]
    written: WrittenRows


class Scorer(Protocol):
    """What scores customers with new features."""

    @property
    def unscored(self) -> Mapping[int, int]:
        """Customers that it has still to score: key to `since`. They are queued, and their features are new."""

    def score(self, runtime: ServerRuntime, refreshed: RefreshedCustomers) -> None:
        """Score these customers, now or later; the scores of all of them are stored by `store_scores`."""


class ImmediateScorer:
    """Scores customers at once."""

    unscored: Mapping[int, int] = {}

    def score(self, runtime: ServerRuntime, refreshed: RefreshedCustomers) -> None:
        """Store the scores of these customers."""
        store_scores(runtime, refreshed)


def process_queue(runtime: ServerRuntime, keys: Collection[int] | None = None) -> bool:
    """Refresh the queued customers; True where none of them is left in the queue.

    With `keys`: these customers first, and some that have been queued longer; True where none of these is left. A
    failure undoes nothing: the customer stays queued and the cause is logged. Before the first nightly run there are
    no features to refresh, and every queued customer counts as left.
    """
    unrefreshed = find_unrefreshed(runtime, keys)
    return unrefreshed is not None and not unrefreshed


def find_unrefreshed(
    runtime: ServerRuntime, keys: Collection[int] | None = None, *, scorer: Scorer = ImmediateScorer()
) -> set[int] | None:
    """As `process_queue`, but returns the customers who are left without new features; None where it is not certain.

    `scorer` may score the customers later: until it has, they stay queued.
    """
    try:
        unprocessed = (
            _process_batches(runtime, _plan_batches(runtime, keys, scorer.unscored), scorer)
            if runtime.has_computed_features
            else set(refresh_queue.list_pending(runtime.shop))
        )
    except Exception as error:
        log.error("features lag behind the books: %s", problems.describe_traceback(error))
        return None
    return unprocessed if keys is None else unprocessed & set(keys)


def rescore_after_batch(runtime: ServerRuntime, as_of: datetime) -> bool:
    """At the end of a nightly run: refresh customers scored online after as_of, and the queue; as `process_queue`.

    Scores later than as_of were made by earlier champions.
    """
    refresh_queue.enqueue_customers(runtime.shop, score_store.customers_scored_after(runtime.shop, as_of))
    return process_queue(runtime)


def _plan_batches(runtime: ServerRuntime, keys: Collection[int] | None, unscored: Mapping[int, int]) -> list[list[int]]:
    """Batches of queued customers, longest queued first; those for whom refresh failed before come last.

    `unscored` customers have new features already, unless there were further records since.
    """
    pending = refresh_queue.list_pending(runtime.shop)
    queued = [key for key, since in pending.items() if unscored.get(key) != since]
    if keys is not None:
        requested = set(keys)
        mine = requested | runtime.failed_customer_keys
        overdue = to_micros(datetime.now(UTC) - OTHERS_AFTER)
        queued = [key for key in queued if not requested or key in mine or pending[key] < overdue]
        queued = sorted(queued, key=lambda key: key not in requested)[: max(BATCH_SIZE, len(requested))]
    failed = [key for key in queued if key in runtime.failed_customer_keys]
    untried = [key for key in queued if key not in runtime.failed_customer_keys]
    return [
        keys_batch[start : start + BATCH_SIZE]
        for keys_batch in (untried, failed)
        for start in range(0, len(keys_batch), BATCH_SIZE)
    ]


def _process_batches(runtime: ServerRuntime, batches: list[list[int]], scorer: Scorer) -> set[int]:
    """Customers that were not refreshed: failed, or not reached since all of a batch had failed."""
    remaining = {key for keys_batch in batches for key in keys_batch}
    unprocessed: set[int] = set()
    for keys_batch in batches:
        failed = _process_batch(runtime, keys_batch, scorer)
        if len(failed) == len(keys_batch) >= MAX_FAILURES:
            return unprocessed | remaining
        unprocessed |= failed
        remaining.difference_update(keys_batch)
    return unprocessed


def _process_batch(runtime: ServerRuntime, keys: list[int], scorer: Scorer) -> set[int]:
    """Customers of the batch for whom refresh failed; one of them must not block the others."""
    try:
        _refresh_queued(runtime, keys, scorer)
    except Exception as error:
        if len(keys) > 1:
            return _process_individually(runtime, keys, scorer)
        log.error("a customer's features lag behind the books: %s", problems.describe_traceback(error))
        runtime.failed_customer_keys.update(keys)
        return set(keys)
    runtime.failed_customer_keys.difference_update(keys)
    return set()


def _process_individually(runtime: ServerRuntime, keys: list[int], scorer: Scorer) -> set[int]:
    failed: set[int] = set()
    for tried_count, key in enumerate(keys, start=1):
        failed |= _process_batch(runtime, [key], scorer)
        if len(failed) == tried_count >= MAX_FAILURES:
            return set(keys)
    return failed


def _refresh_queued(runtime: ServerRuntime, keys: list[int], scorer: Scorer) -> None:
    """Refresh those of these customers who are still queued, from current Parquet copies, and have them scored."""
    shop = runtime.shop
    with refresh_lock(shop):
        queued = refresh_queue.list_pending(shop)
        due = {key: queued[key] for key in keys if key in queued}
        if due:
            mirror.refresh(shop, only=MIRRORED_TABLES)
            scorer.score(runtime, RefreshedCustomers(due, refresh_customers(runtime, list(due))))


def refresh_customers(runtime: ServerRuntime, keys: Sequence[int]) -> WrittenRows:
    """Recompute and push the features of these customers; returns the rows that were written."""
    from features.snapshots import real_time

    shop = runtime.shop
    lines, interaction_rows = mirror.load_lines(shop, keys), mirror.load_interactions(shop, keys)
    as_of = _choose_as_of(runtime, keys, lines, interaction_rows)
    views = real_time.compute_features(lines, interaction_rows, shop.ledger, as_of=as_of, timezone=shop.timezone)
    return runtime.features.push_views(views)


def store_scores(runtime: ServerRuntime, refreshed: RefreshedCustomers) -> None:
    """Store the scores of customers with new features, and take them off the queue."""
    keys = online.filter_profiling_allowed(runtime, list(refreshed.since_by_key))
    online.rescore_customers(runtime, keys, refreshed.written)
    refresh_queue.mark_refreshed(runtime.shop, refreshed.since_by_key)


@contextmanager
def refresh_lock(shop: Shop) -> Iterator[None]:
    """One refresh at a time per shop: of two that read the ledger at once, the older could be stored last."""
    with shop_lock.hold(shop, "refresh"):
        yield


def _choose_as_of(runtime: ServerRuntime, keys: Sequence[int], *tables: pa.Table) -> datetime:
    """A time after all records of these customers and after their newest online features."""
    instants = [runtime.latest_features_at(keys)]
    for table in tables:
        for name in ("sold_at", "happened_at", "known_at", "superseded_at"):
            if name in table.column_names and len(table):
                instants.append(pc.max(table[name]).as_py())
    return max(runtime.now(), *(at + ONE_MICROSECOND for at in instants if at is not None))
