"""Live: what has just happened to a customer changes what is said of them, before the next question.

The news is in the books already. Their figures are computed again by the night's own expressions, put before every
question, and whatever the champions now say of them is written down. What is cut short is made up for later.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from customers.ledger import refresh_queue
from customers.parquet import mirror
from customers.scores import score_store
from customers.shop.settings import Shop
from customers.shop.timestamps import ONE_MICROSECOND
from serving.http import problems
from serving.runtime import ServerRuntime
from serving.scoring import online

log = logging.getLogger("regulars.live")

#: So many are seen to at once: a thousand sales of one request take a few turns, each soon over.
BATCH_SIZE = 200
#: Where it fails for so many and works for nobody, it is not they whom it fails for.
MAX_FAILURES = 10
#: Kinds whose copy beside the ledger is read with every customer's figures, not only with the night's.
MIRRORED_TABLES = ("products", "consents")


def process_queue(runtime: ServerRuntime, keys: Collection[int] | None = None) -> bool:
    """See to everybody whose figures lag behind the books; whether nobody is left behind.

    With `keys` to these, and on the way to some who wait since longer; whether none of these is left behind. A
    failure here undoes nothing: whom it concerns stays on the list, and the log says where it failed. Before the
    first night there are no figures that could lag: it sees to whoever is on the list.
    """
    try:
        unprocessed = (
            _process_batches(runtime, _plan_batches(runtime, keys))
            if runtime.has_computed_features
            else set(refresh_queue.list_pending(runtime.shop))
        )
    except Exception as error:
        log.error("features lag behind the books: %s", problems.describe_traceback(error))
        return False
    return not (unprocessed if keys is None else unprocessed & set(keys))


def scored_after(runtime: ServerRuntime, as_of: datetime) -> list[int]:
    """Of whom something was said already as of a moment later than a night's: they still hear its older champions."""
    return score_store.customers_scored_after(runtime.shop, as_of)


def rescore_after_batch(runtime: ServerRuntime, as_of: datetime) -> bool:
    """What a night does at its end: see to those whom live sales put ahead of it, and to late news; as `catch_up`."""
    refresh_queue.enqueue_customers(runtime.shop, scored_after(runtime, as_of))
    return process_queue(runtime)


def _plan_batches(runtime: ServerRuntime, keys: Collection[int] | None) -> list[list[int]]:
    """Whom to see to, in turns: who waits longest first, and last those for whom it failed before."""
    queued = list(refresh_queue.list_pending(runtime.shop))
    failed = [key for key in queued if key in runtime.failed_customer_keys]
    untried = [key for key in queued if key not in runtime.failed_customer_keys]
    if keys is not None:
        requested = set(keys)
        untried = sorted(untried, key=lambda key: key not in requested)[: max(BATCH_SIZE, len(requested))]
    return [
        keys_batch[start : start + BATCH_SIZE]
        for keys_batch in (untried, failed)
        for start in range(0, len(keys_batch), BATCH_SIZE)
    ]


def _process_batches(runtime: ServerRuntime, batches: list[list[int]]) -> set[int]:
    """Those whom it could not see to, and whom it did not get to: where it fails for all of a turn it ends there."""
    remaining = {key for keys_batch in batches for key in keys_batch}
    unprocessed: set[int] = set()
    for keys_batch in batches:
        failed = _process_batch(runtime, keys_batch)
        if len(failed) == len(keys_batch) >= MAX_FAILURES:
            return unprocessed | remaining
        unprocessed |= failed
        remaining.difference_update(keys_batch)
    return unprocessed


def _process_batch(runtime: ServerRuntime, keys: list[int]) -> set[int]:
    """Those of these customers for whom it failed: one of them must not keep the others behind."""
    try:
        _refresh_queued(runtime, keys)
    except Exception as error:
        if len(keys) > 1:
            return _process_individually(runtime, keys)
        log.error("a customer's features lag behind the books: %s", problems.describe_traceback(error))
        runtime.failed_customer_keys.update(keys)
        return set(keys)
    runtime.failed_customer_keys.difference_update(keys)
    return set()


def _process_individually(runtime: ServerRuntime, keys: list[int]) -> set[int]:
    failed: set[int] = set()
    for tried_count, key in enumerate(keys, start=1):
        failed |= _process_batch(runtime, [key])
        if len(failed) == tried_count >= MAX_FAILURES:
            return set(keys)
    return failed


def _refresh_queued(runtime: ServerRuntime, keys: list[int]) -> None:
    """Refresh those of these customers who still wait, from copies of today, and strike them off the list."""
    shop = runtime.shop
    with refresh_lock(shop):
        queued = refresh_queue.list_pending(shop)
        due = {key: queued[key] for key in keys if key in queued}
        if due:
            mirror.refresh(shop, only=MIRRORED_TABLES)
            refresh_customers(runtime, list(due))
            refresh_queue.mark_refreshed(shop, due)


def refresh_customers(runtime: ServerRuntime, keys: Sequence[int]) -> datetime:
    """Compute the figures of these customers again, show them, and say everything of them anew; as of when."""
    from features.snapshots import real_time

    shop = runtime.shop
    lines, interaction_rows = mirror.load_lines(shop, keys), mirror.load_interactions(shop, keys)
    as_of = _choose_as_of(runtime, keys, lines, interaction_rows)
    views = real_time.compute_features(
        lines, interaction_rows, shop.home / "ledger", as_of=as_of, timezone=shop.timezone
    )
    with runtime.store_lock:
        for view, rows in views.items():
            runtime.features.push(view, rows)
    online.rescore_customers(runtime, online.profiling_allowed(runtime, keys))
    return as_of


@contextmanager
def refresh_lock(shop: Shop) -> Iterator[None]:
    """One at a time in a home: of two that read the books at once, the older could speak last."""
    with (shop.home / "live.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _choose_as_of(runtime: ServerRuntime, keys: Sequence[int], *tables: pa.Table) -> datetime:
    """A moment that sees all that was told, and is later than any that was shown of these customers."""
    instants = [runtime.latest_features_at(keys)]
    for table in tables:
        for name in ("sold_at", "happened_at", "known_at", "superseded_at"):
            if name in table.column_names and len(table):
                instants.append(pc.max(table[name]).as_py())
    return max(runtime.now(), *(at + ONE_MICROSECOND for at in instants if at is not None))
