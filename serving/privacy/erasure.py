"""Forgetting: what was computed of erased customers goes too, wherever it lies."""

from __future__ import annotations

import fcntl
import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from customers.parquet import mirror
from customers.privacy import erasure
from customers.shop.settings import Shop
from features.store.feature_store import FeatureStore
from serving.http import problems
from serving.runtime import ServerRuntime
from serving.scoring import refresh, write_back

log = logging.getLogger("regulars.forget")


def erase_derived_data(
    shop: Shop, store: FeatureStore, *, is_nightly: bool = False, store_lock: AbstractContextManager[Any] | None = None
) -> int:
    """Follow every erasure that was announced; how many. Again is the same as once.

    A night that is at work may have read of somebody before they were erased and write of them after this. Then
    the announcements stand, and the night follows them once more at its end, with `at_night`. `turn`: what
    must be held while the store is at work, where others in this process use it.
    """
    pending = erasure.pending_erasures(shop)
    if not pending:
        return 0
    with refresh.refresh_lock(shop):
        mirror.refresh(shop)
        with store_lock or nullcontext():
            store.delete_customers(sorted({key for _, key in pending}))
    if is_nightly or _is_night_idle(shop):
        erasure.complete_erasures(shop, [number for number, _ in pending])
    return len(pending)


def complete_erasures(runtime: ServerRuntime) -> bool:
    """As `forget`, at the door; whether nothing is left of anybody. A failure leaves the announcement standing."""
    try:
        erase_derived_data(runtime.shop, runtime.features, store_lock=runtime.store_lock)
        write_back.touch_change_marker(runtime.shop)
        return not erasure.pending_erasures(runtime.shop)
    except Exception as error:
        log.error("erased customers are not forgotten everywhere: %s", problems.describe_traceback(error))
        return False


def _is_night_idle(shop: Shop) -> bool:
    """Whether no night is at work in this home."""
    with (shop.home / "night.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
