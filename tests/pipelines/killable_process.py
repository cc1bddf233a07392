"""What may be killed: one act in a program of its own, which drops a bead whenever it has kept something for good.

Run by test_kill.py with HOME, ACT and BEADS among its globals; without BEADS nobody counts.
"""

import json
import os
import sqlite3
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from tqdm import tqdm


def count_commits(marker_file: Path) -> None:
    """A bead for every commit that changed something, in any SQLite file, and for every file renamed into place."""
    descriptor = os.open(marker_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    connect = sqlite3.connect

    def connect_traced(*location: Any, **settings: Any) -> sqlite3.Connection:
        connection = connect(*location, **settings)
        change_counts = [connection.total_changes]

        def on_statement(statement: str) -> None:
            if statement[:6].upper() == "COMMIT" and connection.total_changes > change_counts[0]:
                change_counts[0] = connection.total_changes
                os.write(descriptor, b".")

        connection.set_trace_callback(on_statement)
        return connection

    def on_audit_event(event: str, _: tuple) -> None:
        if event == "os.rename":
            os.write(descriptor, b".")

    sqlite3.connect = sqlite3.dbapi2.connect = connect_traced
    sys.addaudithook(on_audit_event)


def ignore_progress(text: str) -> None:
    """Nobody watches."""


def load(home: Path) -> None:
    """Customers, products and sales, in slices small enough to be killed between."""
    from customers.loading import load_customers, load_transactions
    from customers.shop import settings
    from pipelines import operations

    load_customers.BATCH_SIZE, load_transactions.BATCH_SIZE = 10, 100
    for kind in ("customers", "products", "transactions"):
        operations.load_records(settings.open_shop(home), kind, [home.parent / f"{kind}.csv"], source="files")


def promote(home: Path) -> None:
    """The newest version of every model becomes champion."""
    from customers.shop import settings
    from models.registry import mlflow_registry
    from training import promotion
    from training.tasks.all_tasks import TASKS

    this_shop = settings.open_shop(home)
    for task in TASKS:
        newest = mlflow_registry.list_versions(promotion.registry_uri(this_shop), task.name)[-1]
        promotion.promote(this_shop, task.name, version=newest, why="by hand")


def materialise(home: Path) -> None:
    """The features of the shop's now go into the online store."""
    from customers import clock
    from customers.shop import settings
    from features.store import feature_store

    this_shop = settings.open_shop(home)
    features = feature_store.open_store(home / "features", this_shop.online_store)
    features.apply()
    features.materialise(clock.now(this_shop))


def run_nightly(home: Path) -> None:
    """A whole night."""
    from customers.shop import settings
    from pipelines.nightly import run as nightly_run

    nightly_run.run_nightly(settings.open_shop(home), progress=ignore_progress)


def write_back(home: Path) -> None:
    """The champions as they are score everybody."""
    from customers.shop import settings
    from serving import runtime
    from serving.scoring import batch, fallback

    server_runtime = runtime.open_runtime(settings.open_shop(home))
    server_runtime.features.apply()
    champions = {name: server_runtime.champion(name) for name in runtime.MODEL_NAMES}
    fallbacks = [name for name, champion in champions.items() if fallback.uses_fallback(champion)]
    served_models = {name: (champion.version, champion.model) for name, champion in champions.items()}
    batch.score_all_customers(
        server_runtime.shop, server_runtime.features, served_models, server_runtime.now(), fallback_names=fallbacks
    )


def live_sale(home: Path) -> None:
    """Sales at the till, one after another, of customers and products old and new; each waits for its answer."""
    os.environ["REGULARS_HOME"] = str(home)
    from starlette.testclient import TestClient

    from serving.service import Regulars

    headers = {"Authorization": f"Bearer {(home / 'till.key').read_text()}"}
    with TestClient(Regulars.to_asgi(), raise_server_exceptions=False) as till:
        for number, lines in enumerate(json.loads((home / "basket.json").read_text())):
            answer = till.post("/v1/transactions", json=lines, headers={**headers, "Idempotency-Key": f"sale-{number}"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["refreshed"], "the figures follow before the answer is given"


if "ACT" in globals():
    warnings.simplefilter("ignore")
    tqdm.set_lock(threading.RLock())  # its own is the system's, and would outlive whoever is killed
    if "BEADS" in globals():
        count_commits(globals()["BEADS"])
    globals()[globals()["ACT"]](globals()["HOME"])
