"""Fills the online store again after it has lost its features: by later records, then from the last night's snapshot.

It runs in a process of its own, which imports Feast and ends: python -m serving.online_refill HOME
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from customers.database import shop_lock
from customers.ledger import refresh_queue
from customers.privacy import consents
from customers.shop import settings
from features.store.online_values import OnlineStoreUnavailable
from serving import logs, runtime
from serving.privacy import erasure
from serving.runtime import ServerRuntime

log = logging.getLogger("regulars.features")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 300.0


class OnlineRefill:
    """Starts the process that fills the online store of a shop again, once it has lost its features."""

    def __init__(self, server_runtime: ServerRuntime) -> None:
        self._runtime = server_runtime
        self._process: subprocess.Popen[bytes] | None = None
        self._next_at, self._pause = float("-inf"), FIRST_PAUSE_SECONDS

    def check(self) -> None:
        """Look once. After a process that failed, or whose rows did not last, each further one waits twice as long."""
        if self._process is not None and self._process.poll() is None:
            self._next_at = time.monotonic() + self._pause
        elif time.monotonic() < self._next_at:
            return
        elif not needs_refill(self._runtime):
            self._pause = FIRST_PAUSE_SECONDS
        elif shop_lock.is_free(self._runtime.shop, erasure.NIGHT_LOCK):  # a nightly run fills the store itself
            self._start()

    def _start(self) -> None:
        """Start the process, unless another worker's works; also then the next look of this worker waits longer."""
        if shop_lock.is_free(self._runtime.shop, erasure.REFILL_LOCK, in_home=True):
            command = [sys.executable, "-m", "serving.online_refill", str(self._runtime.shop.home)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        self._next_at = time.monotonic() + self._pause


def needs_refill(server_runtime: ServerRuntime) -> bool:
    """Whether the online store answers, and has lost what a nightly run has written."""
    if not server_runtime.has_computed_features:
        return False
    with suppress(OnlineStoreUnavailable):
        return server_runtime.features.has_lost_values()
    return False


def refill(server_runtime: ServerRuntime) -> bool:
    """Fill the online store again, unless another process of the shop does; whether all of it is done.

    Customers with records since the night come first: nobody is to have the night's features without being marked.
    """
    from serving.scoring import refresh

    try:
        with shop_lock.hold(server_runtime.shop, erasure.REFILL_LOCK, wait=False):
            as_of = server_runtime.features.latest_snapshot_at(runtime.ALL_CUSTOMERS_SERVICE)
            if as_of is None or not needs_refill(server_runtime):
                return True
            # The night's features may have been made of sensitive products that may no longer be used.
            restated = consents.customers_with_statements_since(server_runtime.shop, as_of)
            refresh_queue.enqueue_customers(server_runtime.shop, restated)
            is_refreshed = refresh.rescore_after_batch(server_runtime, as_of)
            unrefreshed = restated & refresh_queue.list_pending(server_runtime.shop).keys()
            rows = server_runtime.features.materialise(as_of, without=unrefreshed)  # replaces no row that is newer
            erase_again(server_runtime)
            log.warning("the online store had lost its features and was filled again: %d rows", sum(rows.values()))
            return is_refreshed
    except shop_lock.LockHeld:
        return True


def erase_again(server_runtime: ServerRuntime) -> None:
    """Delete who was erased meanwhile: a snapshot that was being read still had their rows."""
    shop, features = server_runtime.shop, server_runtime.features
    erasure.erase_derived_data(shop, features, held_lock=erasure.REFILL_LOCK)
    erasure.follow_erasures(shop, features, held_lock=erasure.REFILL_LOCK)


def main() -> None:
    """Fill the online store of the home that is the only argument."""
    logs.configure()
    shop = settings.open_shop(Path(sys.argv[1]))
    sys.exit(0 if refill(runtime.open_runtime(shop)) else 1)


if __name__ == "__main__":
    main()
