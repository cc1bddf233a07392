"""Brings the home of a server up to date with a nightly run, or a promotion, on another machine of the same shop.

Servers of one shop share its database, its online store and its model registry. Everything else that a server reads is
made of these: champions come from the registry, the mirror, the last night's snapshot and what is counted over it from
the database, as of the last night. `watch` runs beside the workers and looks for changes; a process of its own then
makes them, since it imports MLflow and Feast, and ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from customers.database import shop_lock
from customers.privacy import consents
from customers.scores import promotion_log, score_store
from customers.shop import settings
from customers.shop.errors import ShopUnavailable
from customers.shop.settings import Shop
from models.registry import bundle

MODULE = "pipelines.replica"
CHECK_SECONDS = 1.0
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
    parent, pause = os.getppid(), CHECK_SECONDS
    shop = settings.open_shop(home)
    while os.getppid() == parent:
        time.sleep(pause)
        if not _is_outdated(shop):
            pause = CHECK_SECONDS
            continue
        subprocess.run([sys.executable, "-m", MODULE, str(home), "update"], check=False)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS) if _is_outdated(shop) else CHECK_SECONDS


def find_outdated_champions(shop: Shop) -> list[str]:
    """The models whose champion in this home is not the one that the promotion log names."""
    versions = promotion_log.load_champion_versions(shop)
    return sorted(name for name, version in versions.items() if _published_version(shop, name) != version)


def find_missing_night(shop: Shop) -> datetime | None:
    """The as_of of the last night of the shop, where this home has none or an earlier one."""
    runs = [run for name in ("churn", "recommender") if (run := score_store.newest_run(shop, name))]
    latest_at, own_at = max((run.as_of for run in runs), default=None), _snapshot_at(shop)
    return latest_at if latest_at and (own_at is None or own_at < latest_at) else None


def update(shop: Shop) -> None:
    """Derive the last night's files from the database, then publish the registry's champions in this home.

    In this order: a server without champions says that it is not ready.
    """
    from training import promotion  # imported here: the watching process stays small

    if (as_of := find_missing_night(shop)) is not None:
        try:
            with shop_lock.hold(shop, "night", wait=False):
                derive_night(shop, as_of)
        except shop_lock.LockHeld:
            pass  # a nightly run is at work, here or elsewhere: its end is the next change
    for name in find_outdated_champions(shop):
        promotion.publish_champion(shop, name)


def derive_night(shop: Shop, as_of: datetime) -> None:
    """Write the snapshot of a night at its as_of, its prices and co-purchases, and the RFM quintiles, into this home.

    They are equal to those of the home where the night ran, but for consents and erasures since.
    """
    import pandas as pd

    from customers.parquet import mirror
    from features.products import co_purchases
    from features.snapshots import snapshot
    from features.store import feature_store
    from serving.scoring.inputs import NightlyInputs, NightlyRun

    mirror.refresh(shop)
    ledger, folder = shop.home / "ledger", shop.home / "features"
    store = feature_store.open_store(folder, shop.online_store)
    store.apply()
    counts = co_purchases.count_co_purchases(ledger, as_of=as_of, timezone=shop.timezone, engine=shop.engine)
    co_purchases.save_co_purchases(counts, folder)
    snapshot.write_snapshot(ledger, folder, as_of=as_of, cutoffs=[as_of], timezone=shop.timezone, engine=shop.engine)
    path = folder / "rhythm" / "part.parquet"
    entities = consents.filter_allowed(shop, pd.read_parquet(path, columns=["customer_key"]), "profiling")
    if len(entities):
        inputs = NightlyInputs(NightlyRun(shop, store, {}, as_of, ()), entities)
        inputs.load_quintiles(inputs.load_features("churn"))


def _is_outdated(shop: Shop) -> bool:
    try:
        return bool(find_outdated_champions(shop)) or find_missing_night(shop) is not None
    except ShopUnavailable:
        return False


def _published_version(shop: Shop, name: str) -> str | None:
    try:
        pointer = bundle.read_pointer(shop.home / "champions", name)
    except bundle.InvalidBundle:
        return None
    return pointer.version if pointer else None


def _snapshot_at(shop: Shop) -> datetime | None:
    from features.store import snapshot_reader

    path = shop.home / "features" / "rhythm" / "part.parquet"
    return snapshot_reader.latest_cutoff(path) if path.exists() else None


def main() -> None:
    """`python -m pipelines.replica HOME watch`, or `update`, which makes the changes and ends."""
    home, work = Path(sys.argv[1]), sys.argv[2]
    if work == "update":
        update(settings.open_shop(home))
    else:
        watch(home)


if __name__ == "__main__":
    main()
