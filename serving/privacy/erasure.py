"""Erasure of derived data: the features of erased customers are deleted wherever they are stored."""

from __future__ import annotations

import json
import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from customers.database import engine, shop_lock
from customers.loading import disk_space
from customers.parquet import mirror
from customers.privacy import erasure, tombstones
from customers.shop import durable_files
from customers.shop.settings import Shop
from features.store.feature_store import FeatureStore
from serving.arrays import night_arrays
from serving.http import problems
from serving.runtime import ServerRuntime
from serving.scoring import refresh, write_back

log = logging.getLogger("regulars.erasure")

#: Held by who reads snapshots and writes features: a nightly run, and a refill of the online store.
NIGHT_LOCK, REFILL_LOCK = "night", "refill"


def erase_derived_data(
    shop: Shop,
    store: FeatureStore,
    *,
    held_lock: str | None = None,
    store_lock: AbstractContextManager[Any] | None = None,
) -> int:
    """Delete the derived data of every customer with a pending erasure; return how many. Safe to repeat.

    A nightly run, or a refill of the online store, in progress may have read a customer before their erasure and write
    their features after it. Then the erasures stay pending, and it repeats this at its end, with the name of the lock
    that it holds. `store_lock` is held while the feature store is in use, where other threads of this process share it.
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
    numbers = [number for number, _ in pending]
    is_refill_over = held_lock == REFILL_LOCK or shop_lock.is_free(shop, REFILL_LOCK)
    if is_refill_over and min(numbers) == _followed_erasure(shop) + 1:
        _mark_followed(shop, max(numbers))
    if is_refill_over and (held_lock == NIGHT_LOCK or shop_lock.is_free(shop, NIGHT_LOCK)):
        erasure.complete_erasures(shop, numbers)
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


def follow_erasures(shop: Shop, store: FeatureStore, *, held_lock: str | None = None) -> None:
    """Delete from this home the derived data of customers who were erased through another one. Safe to repeat.

    Where a refill of the online store is in progress in this home, it repeats this at its end, with its `held_lock`.
    """
    with engine.read_transaction(shop) as connection:
        latest_id = tombstones.latest_erasure_id(connection)
        keys = sorted(tombstones.keys_erased_since(connection, _followed_erasure(shop)))
    if keys:
        mirror.refresh(shop)
        store.delete_customers(keys)
        night_arrays.erase_customers(shop.home, keys)
        # Their rows can no longer be told apart: nobody knows the ids of erased customers.
        for path in (shop.home / "exports").rglob("*"):
            if path.is_file():
                path.unlink(missing_ok=True)
    if held_lock == REFILL_LOCK or shop_lock.is_free(shop, REFILL_LOCK, in_home=True):
        _mark_followed(shop, latest_id)


def is_following(shop: Shop) -> bool:
    """Whether this home has no derived data of a customer who was erased through another one."""
    with engine.read_transaction(shop) as connection:
        return _followed_erasure(shop) >= tombstones.latest_erasure_id(connection)


def _followed_erasure(shop: Shop) -> int:
    """The erasure up to which this home holds nothing of the erased."""
    path = shop.home / "erasures.json"
    return int(json.loads(path.read_text(encoding="utf-8"))["erasure_id"]) if path.exists() else 0


def _mark_followed(shop: Shop, erasure_id: int) -> None:
    durable_files.write_atomically(shop.home / "erasures.json", json.dumps({"erasure_id": erasure_id}))
