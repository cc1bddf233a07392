"""Erasure of derived data: the features of erased customers are deleted wherever they are stored."""

from __future__ import annotations

import fcntl
import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from customers.loading import disk_space
from customers.parquet import mirror
from customers.privacy import erasure
from customers.shop.settings import Shop
from features.store.feature_store import FeatureStore
from serving.arrays import night_arrays
from serving.http import problems
from serving.runtime import ServerRuntime
from serving.scoring import refresh, write_back

log = logging.getLogger("regulars.erasure")


def erase_derived_data(
    shop: Shop, store: FeatureStore, *, is_nightly: bool = False, store_lock: AbstractContextManager[Any] | None = None
) -> int:
    """Delete the derived data of every customer with a pending erasure; return how many. Safe to repeat.

    A nightly run in progress may have read a customer before their erasure and write their features after it. Then
    the erasures stay pending, and the run repeats this at its end, with `is_nightly`. `store_lock` is held while the
    feature store is in use, where other threads of this process share it.
    """
    pending = erasure.pending_erasures(shop)
    if not pending:
        return 0
    keys = sorted({key for _, key in pending})
    with refresh.refresh_lock(shop):
        mirror.refresh(shop)
        with store_lock or nullcontext():
            store.delete_customers(keys)
    night_arrays.erase_customers(shop.home, keys)
    disk_space.remove_leftovers(shop.home)
    if is_nightly or _is_nightly_run_idle(shop):
        erasure.complete_erasures(shop, [number for number, _ in pending])
    return len(pending)


def complete_erasures(runtime: ServerRuntime) -> bool:
    """Run `erase_derived_data` in the server; whether no erasure is pending then. After a failure it stays pending."""
    try:
        erase_derived_data(runtime.shop, runtime.features, store_lock=runtime.store_lock)
        write_back.touch_change_marker(runtime.shop)
        return not erasure.pending_erasures(runtime.shop)
    except Exception as error:
        log.error(
            "derived data of erased customers could not be deleted; the next nightly run tries again: %s",
            problems.describe_traceback(error),
        )
        return False


def _is_nightly_run_idle(shop: Shop) -> bool:
    """Whether no nightly run is in progress in this home."""
    with (shop.home / "night.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
