"""Forgetting: what was computed of erased customers goes too, wherever it lies."""

from __future__ import annotations

import fcntl
import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from customers import mirror, privacy
from customers.shop import Shop
from features.store import Store
from serving import live, problems, writeback
from serving.desk import Desk

log = logging.getLogger("regulars.forget")


def forget(shop: Shop, store: Store, *, at_night: bool = False, turn: AbstractContextManager[Any] | None = None) -> int:
    """Follow every erasure that was announced; how many. Again is the same as once.

    A night that is at work may have read of somebody before they were erased and write of them after this. Then
    the announcements stand, and the night follows them once more at its end, with `at_night`. `turn`: what
    must be held while the store is at work, where others in this process use it.
    """
    pending = privacy.unforgotten(shop)
    if not pending:
        return 0
    with live.alone(shop):
        mirror.refresh(shop)
        with turn or nullcontext():
            store.forget(sorted({key for _, key in pending}))
    if at_night or _no_night(shop):
        privacy.forgotten(shop, [number for number, _ in pending])
    return len(pending)


def follow(desk: Desk) -> bool:
    """As `forget`, at the door; whether nothing is left of anybody. A failure leaves the announcement standing."""
    try:
        forget(desk.shop, desk.features, turn=desk.turn)
        writeback.heard(desk.shop)
        return not privacy.unforgotten(desk.shop)
    except Exception as error:
        log.error("erased customers are not forgotten everywhere: %s", problems.whereabouts(error))
        return False


def _no_night(shop: Shop) -> bool:
    """Whether no night is at work in this home."""
    with (shop.home / "night.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
