"""A process to be killed: it runs one operation and appends a marker to a file after every durable write.

Run by nightly/test_crash_recovery.py with the globals HOME, OPERATION (the name of a function below) and MARKER_FILE;
without MARKER_FILE nothing is counted.
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
    """Append one byte to `marker_file` for every commit with changes, in any SQLite file, and every file rename."""
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
    """A progress callback that does nothing."""


def load(home: Path) -> None:
    """Load customers, products and sales in batches so small that a kill lands between them."""
    from customers.loading import load_customers, load_transactions
    from customers.shop import settings
    from pipelines import operations

    load_customers.BATCH_SIZE, load_transactions.BATCH_SIZE = 10, 100
    for kind in ("customers", "products", "transactions"):
        operations.load_records(settings.open_shop(home), kind, [home.parent / f"{kind}.csv"], source="files")


def promote(home: Path) -> None:
    """Promote the newest version of every model."""
    from customers.shop import settings
    from models.registry import mlflow_registry
    from training import promotion
    from training.tasks.all_tasks import TASKS

    shop = settings.open_shop(home)
    for task in TASKS:
        newest = mlflow_registry.list_versions(promotion.registry_uri(shop), task.name)[-1]
        promotion.promote(shop, task.name, version=newest, why="by hand")


def materialise(home: Path) -> None:
    """Write the current features to the online store."""
    from customers import clock
    from customers.shop import settings
    from features.store import feature_store

    shop = settings.open_shop(home)
    features = feature_store.open_store(home / "features", shop.online_store)
    features.apply()
    features.materialise(clock.now(shop))


def run_nightly(home: Path) -> None:
    """A whole nightly run."""
    from customers.shop import settings
    from pipelines.nightly import run as nightly_run

    nightly_run.run_nightly(settings.open_shop(home), progress=ignore_progress)


def write_back(home: Path) -> None:
    """Score all customers with the current champions."""
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
    """Post sales one after another, of new and existing customers and products; each waits for its response."""
    os.environ["REGULARS_HOME"] = str(home)
    from starlette.testclient import TestClient

    from serving.service import Regulars

    headers = {"Authorization": f"Bearer {(home / 'till.key').read_text()}"}
    with TestClient(Regulars.to_asgi(), raise_server_exceptions=False) as till:
        for number, lines in enumerate(json.loads((home / "basket.json").read_text())):
            response = till.post(
                "/v1/transactions", json=lines, headers={**headers, "Idempotency-Key": f"sale-{number}"}
            )
            assert response.status_code == 200, response.text
            assert response.json()["refreshed"], "the scores are updated before the response"


if "OPERATION" in globals():
    warnings.simplefilter("ignore")
    tqdm.set_lock(threading.RLock())  # tqdm's own is a system-wide lock, which a killed process would leave locked
    if "MARKER_FILE" in globals():
        count_commits(globals()["MARKER_FILE"])
    globals()[globals()["OPERATION"]](globals()["HOME"])
