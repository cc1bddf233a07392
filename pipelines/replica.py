"""Brings the home of a server up to date with a nightly run, or a promotion, on another machine of the same shop.

Servers of one shop share its database, its online store and its model registry. Everything else that a server reads is
made of these: champions come from the registry, the mirror, the last night's snapshot and what is counted over it from
the database, as of the last night. `watch` runs beside the workers and looks for changes; a process of its own then
makes them, since it imports MLflow and Feast, and ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from customers.database import shop_lock
from customers.privacy import consents
from customers.scores import night_marker, promotion_log, score_store
from customers.shop import settings
from customers.shop.errors import ShopUnavailable
from customers.shop.settings import Shop
from models.registry import bundle

#: What differs, and the version or time that it should have.
Change = tuple[str, str]

MODULE = "pipelines.replica"
CHECK_SECONDS = 1.0
#: So often a registry is looked at that has not yet the version that the promotion log names, and the time between.
REGISTRY_LOOKS, REGISTRY_PAUSE_SECONDS = 5, 0.5
#: After an update that did not help, such as during an outage of the registry, the next one waits longer.
LONGEST_PAUSE_SECONDS = 60.0


def is_shared(shop: Shop) -> bool:
    """Whether other machines may serve this shop: its database is on a server, and so is its model registry."""
    return not shop.database_url.startswith("sqlite") and bool(os.environ.get("MLFLOW_TRACKING_URI"))


def watch_command(shop: Shop) -> list[str]:
    """The command that keeps the home up to date, as a process beside the workers of its server."""
    return [sys.executable, "-m", MODULE, str(shop.home), "watch"]


def watch(home: Path) -> None:
    """Look for changes made elsewhere until the process that started this one ends, and update the home after each."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parent, pause = os.getppid(), CHECK_SECONDS
    shop = settings.open_shop(home)
    settled: frozenset[Change] = frozenset()
    while os.getppid() == parent:
        time.sleep(pause)
        changes = _find_changes(shop)
        if changes <= settled:
            pause = CHECK_SECONDS
            continue
        is_complete = _run_update(home, parent)
        remaining = _find_changes(shop)
        # What is still left after the longest pause is as the registry wants it: an alias that was set by hand there.
        if is_complete and (not remaining or pause == LONGEST_PAUSE_SECONDS):
            settled, pause = remaining, CHECK_SECONDS
        else:
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _run_update(home: Path, parent: int) -> bool:
    """Make the changes in a process of its own, which ends with this one; whether it could make all of them."""
    process = subprocess.Popen([sys.executable, "-m", MODULE, str(home), "update"])
    try:
        while process.poll() is None and os.getppid() == parent:
            time.sleep(CHECK_SECONDS)
    finally:
        if process.poll() is None:
            process.terminate()
    return process.wait() == 0


def _find_changes(shop: Shop) -> frozenset[Change]:
    """What this home lacks: champions, a night, erasures; empty while the database does not answer."""
    from serving.privacy import erasure

    try:
        changes: set[Change] = set(find_outdated_champions(shop).items())
        if (as_of := find_missing_night(shop)) is not None:
            changes.add(("night", as_of.isoformat()))
        if not erasure.is_following(shop):
            changes.add(("erasures", ""))
    except ShopUnavailable:
        return frozenset()
    return frozenset(changes)


def find_outdated_champions(shop: Shop) -> dict[str, str]:
    """The version that the promotion log names, by model, where another one is published in this home."""
    versions = promotion_log.load_champion_versions(shop)
    return {name: version for name, version in versions.items() if _pointer_version(shop, name) != version}


def find_missing_night(shop: Shop) -> datetime | None:
    """The as_of of the last night of the shop, where this home has none or an earlier one."""
    runs = [run for name in ("churn", "recommender") if (run := score_store.newest_run(shop, name))]
    latest_at, own_at = max((run.as_of for run in runs), default=None), night_marker.read_marker(shop.home)
    return latest_at if latest_at and (own_at is None or own_at < latest_at) else None


def update(shop: Shop) -> bool:
    """Derive the last night's files from the database, follow erasures, then publish the registry's champions.

    In this order: a server without champions says that it is not ready. False where a nightly run or a refill of the
    online store works in this home, which must end before the rest is done.
    """
    from serving.privacy import erasure

    is_complete = True
    try:
        with shop_lock.hold_home(shop, "night", wait=False):
            _update_files(shop)
            is_complete = erasure.is_following(shop)
    except shop_lock.LockHeld:
        is_complete = False
    if is_complete or night_marker.read_marker(shop.home) is not None:
        for name, version in find_outdated_champions(shop).items():
            _publish(shop, name, version)
    return is_complete


def _publish(shop: Shop, name: str, version: str) -> None:
    """Publish the registry's champion, for which this version is waited for a little: the log had it a moment before.

    An alias that was set by hand in MLflow names another version for ever.
    """
    from training import promotion  # imported here: the watching process stays small

    for _ in range(REGISTRY_LOOKS):
        if promotion.publish_champion(shop, name) == version:
            return
        time.sleep(REGISTRY_PAUSE_SECONDS)


def _update_files(shop: Shop) -> None:
    from features.store import feature_store
    from serving.privacy import erasure

    if (as_of := find_missing_night(shop)) is not None:
        derive_night(shop, as_of)
    erasure.follow_erasures(shop, feature_store.open_store(shop.home / "features", shop.online_store))


def derive_night(shop: Shop, as_of: datetime) -> None:
    """Write the snapshot of a night at its as_of, its prices and co-purchases, and the RFM quintiles, into this home.

    They are equal to those of the home where the night ran, but for consents, erasures and products changed since.
    """
    import pandas as pd

    from customers.parquet import mirror
    from features.products import co_purchases
    from features.snapshots import snapshot
    from features.store import feature_store
    from serving.scoring.inputs import NightlyInputs, NightlyRun

    mirror.refresh(shop)
    ledger, folder = shop.ledger, shop.home / "features"
    store = feature_store.open_store(folder, shop.online_store)
    store.read_registry()
    counts = co_purchases.count_co_purchases(ledger, as_of=as_of, timezone=shop.timezone, engine=shop.engine)
    co_purchases.save_co_purchases(counts, folder)
    snapshot.write_snapshot(ledger, folder, as_of=as_of, cutoffs=[as_of], timezone=shop.timezone, engine=shop.engine)
    path = folder / "rhythm" / "part.parquet"
    entities = consents.filter_allowed(shop, pd.read_parquet(path, columns=["customer_key"]), "profiling")
    if len(entities):
        inputs = NightlyInputs(NightlyRun(shop, store, {}, as_of, ()), entities)
        inputs.load_quintiles(inputs.load_features("churn"))
    night_marker.write_marker(shop.home, as_of)


def _pointer_version(shop: Shop, name: str) -> str | None:
    try:
        pointer = bundle.read_pointer(shop.home / "champions", name)
    except bundle.InvalidBundle:
        return None
    return pointer.version if pointer else None


def main() -> None:
    """`python -m pipelines.replica HOME watch`, or `update`, which makes the changes and ends."""
    home, work = Path(sys.argv[1]), sys.argv[2]
    if work == "update":
        sys.exit(0 if update(settings.open_shop(home)) else 1)
    watch(home)


if __name__ == "__main__":
    main()
