"""Crash recovery: an operation killed at any time and then run again leaves the same state as one undisturbed run."""

import json
import multiprocessing
import os
import runpy
import shutil
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from customers import clock, setup
from customers.database import engine, schema
from customers.ledger import watermark
from customers.loading.load import load_files
from customers.parquet import mirror
from customers.people import lookup
from customers.reports import exports
from customers.scores import promotion_log, score_store
from customers.security import api_keys
from customers.shop import settings
from customers.shop.settings import Shop
from features import definitions
from features.store import feature_store
from models.registry import bundle, mlflow_registry
from pipelines import operations
from training import promotion
from training.tasks.all_tasks import TASKS

pytestmark = pytest.mark.acceptance

KILLABLE_PROCESS = Path(__file__).parents[1] / "killable_process.py"
#: The least number of kills per operation; `make acceptance` sets it to twenty.
KILLS = int(os.environ.get("KILLS", "0"))
#: Imported once, in the fork server, so that each operation starts at once.
PRELOADED = (
    "pipelines.nightly.run", "pipelines.operations", "serving.service", "starlette.testclient",
    "features.store.online_sqlite", "lightgbm", "feast", "feast.infra.offline_stores.duckdb",
    "ibis.backends.duckdb", "mlflow", "mlflow.store.db.utils",
)  # fmt: skip
FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(list(PRELOADED))

State = dict[str, pd.DataFrame]


class CrashTrial:
    """Runs an operation on copies of a home, undisturbed or killed, and compares the states they end in."""

    def __init__(self, before: Path, operation: str, state: Callable[[Path], State], folder: Path) -> None:
        self.before, self.operation, self.state, self.folder = before, operation, state, folder
        self.random = np.random.default_rng(11)
        clean = self.copy("clean")
        self.total = self.run(clean, kill_after=None)
        self.expected = state(clean)

    def copy(self, name: str) -> Path:
        for file in self.before.parent.glob("*.csv"):
            (self.folder / name).mkdir(exist_ok=True)
            shutil.copy(file, self.folder / name)
        return shutil.copytree(self.before, self.folder / name / "home")

    def run(self, home: Path, *, kill_after: int | None) -> int:
        """Run the operation to its end, or kill it after so many commits; returns the number of commits."""
        markers = home.parent / "markers"
        markers.write_bytes(b"")
        process_globals = {"HOME": home, "OPERATION": self.operation, "MARKER_FILE": markers}
        process = FORK_SERVER.Process(
            target=runpy.run_path, args=(str(KILLABLE_PROCESS),), kwargs={"init_globals": process_globals}
        )
        process.start()
        while kill_after is not None and markers.stat().st_size < kill_after and not wait([process.sentinel], 0.0005):
            pass
        if kill_after is not None:
            time.sleep(self.random.uniform(0, 0.01))  # just before a commit, in it, or some way after
            process.kill()
        process.join()
        assert kill_after is not None or process.exitcode == 0
        return markers.stat().st_size

    def kill_and_rerun(self, kills: int) -> list[int]:
        """Kill the operation after random commits, rerun it and compare; returns the commits before each kill."""
        reached = []
        for number in range(kills):
            home = self.copy(f"kill-{number}")
            reached.append(self.run(home, kill_after=int(self.random.integers(1, self.total))))
            self.run(home, kill_after=None)
            recovered = self.state(home)
            for name, frame in self.expected.items():
                pd.testing.assert_frame_equal(recovered[name], frame, obj=f"{name} after {reached[-1]} of {self.total}")
            shutil.rmtree(home.parent)
        return reached


@pytest.fixture
def assert_recovers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Kills an operation several times: assert_recovers(before, operation, state).

    At least three kills in four must fall between its first and last commit.
    """

    def check(before: Path, operation: str, state: Callable[[Path], State], *, kills: int = 2) -> None:
        kills = max(kills, KILLS)
        trial = CrashTrial(before, operation, state, tmp_path)
        reached = trial.kill_and_rerun(kills)
        between = sum(1 <= commits < trial.total for commits in reached)
        with capsys.disabled():
            sys.stdout.write(
                f"\n{operation}: {between} of {kills} kills between the first and the last of {trial.total} commits "
            )
        assert between >= 3 * kills / 4

    return check


# Load -------------------------------------------------------------------------------------------------

LINES = """select t.*, i.customer_id, p.product_id from {table} t left join identities i using (customer_key)
           join products p using (product_key) order by order_id, line_id, known_at"""


def ledger_state(home: Path) -> State:
    """The stored records, by external ids, since internal keys are random."""
    shop = settings.open_shop(home)
    keys = ["customer_key", "product_key"]
    with engine.read_transaction(shop) as connection:
        lines, history, people = (
            pd.read_sql(sa.text(query), connection)
            for query in (
                LINES.format(table="transactions"), LINES.format(table="transactions_history"),
                "select customer_key, customer_id, stage from customers join identities using (customer_key)",
            )
        )  # fmt: skip
        row_counts = {name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar()
                      for name, table in schema.metadata.tables.items()}  # fmt: skip
    mirrored = pq.ParquetDataset(sorted((home / "ledger").glob("month=*/part.parquet"))).read().to_pandas()
    mirrored = mirrored.merge(people, how="left", on="customer_key").drop(columns=[*keys, "order_key"], errors="ignore")
    return {
        "lines": lines.drop(columns=keys), "history": history.drop(columns=keys),
        "people": people.drop(columns="customer_key").sort_values("customer_id", ignore_index=True),
        "mirror": mirrored.sort_values(mirrored.columns.tolist(), ignore_index=True),
        "still to mirror": pd.DataFrame({"month": mirror.refresh(shop)}),
        "rows": pd.DataFrame(row_counts.items()),
    }  # fmt: skip


def test_a_killed_load_recovers(small_shop_files: Path, tmp_path: Path, assert_recovers: Callable[..., None]) -> None:
    """Half of the customers were loaded before a nightly run; the new file changes, removes and adds lines."""
    shop = setup.init_home(tmp_path / "before" / "home", timezone="America/New_York", currency="USD", now="last-sale")
    complete, export = small_shop_files / "transactions.csv", tmp_path / "before" / "transactions.csv"
    sales = pd.read_csv(complete, dtype=str)
    sales = sales[sales["customer_id"] < "c060"]
    sales[sales["customer_id"] < "c030"].to_csv(export, index=False)
    load_files(shop, "transactions", [export])
    watermark.record_run_start(shop, clock.now(shop))
    sales["amount"] = sales["amount"].where(sales["product_id"] != "p07", "9.99")
    sales[(sales["product_id"] != "p08") | (sales["customer_id"] >= "c010")].to_csv(export, index=False)
    for kind in ("customers", "products"):
        shutil.copy(small_shop_files / f"{kind}.csv", tmp_path / "before")
    assert_recovers(shop.home, "load", ledger_state, kills=4)


# Promotion --------------------------------------------------------------------------------------------


def champion_state(home: Path) -> State:
    """The champions, as the registry, the published bundles and the promotion log have them."""
    shop = settings.open_shop(home)
    uri = promotion.registry_uri(shop)
    rows = [
        (task.name, mlflow_registry.list_versions(uri, task.name),
         mlflow_registry.version_by_alias(uri, task.name, "champion"),
         mlflow_registry.version_by_alias(uri, task.name, "challenger"), published_version(shop, task.name))
        for task in TASKS
    ]  # fmt: skip
    log = [
        (entry.name, entry.version, entry.previous, entry.action, entry.why)
        for entry in promotion_log.load_history(shop)
    ]
    return {"champions": pd.DataFrame(rows), "log": pd.DataFrame(log)}


def published_version(shop: Shop, name: str) -> str | None:
    champion = bundle.open_champion(shop.home / "champions", name)
    return champion.version if champion else None


def test_a_killed_promotion_recovers(
    first_run_home: Path, tmp_path: Path, assert_recovers: Callable[..., None]
) -> None:
    home = shutil.copytree(first_run_home, tmp_path / "before" / "home")
    uri = promotion.registry_uri(settings.open_shop(home))
    for task in TASKS:
        champion = mlflow_registry.version_by_alias(uri, task.name, "champion")
        recorded = mlflow_registry.get_version(uri, task.name, champion)
        folder = home / "champions" / task.name / champion
        version, _ = mlflow_registry.register_version(
            uri, task.name, folder, params=recorded.params, tags=recorded.tags
        )
        mlflow_registry.set_alias(uri, task.name, "challenger", version)
    assert_recovers(home, "promote", champion_state)


# Materialise ------------------------------------------------------------------------------------------


def online_state(home: Path) -> State:
    """The online features of every customer, a frame per feature service."""
    features = feature_store.open_store(home / "features")
    rows = pq.read_table(home / "features" / "rhythm" / "part.parquet", columns=["customer_key"])
    keys = sorted(set(rows["customer_key"].to_pylist()))
    return {service: features.online_features(service, keys) for service in definitions.SERVICES}


def test_a_killed_materialisation_recovers(
    first_run_home: Path, tmp_path: Path, assert_recovers: Callable[..., None]
) -> None:
    home = shutil.copytree(
        first_run_home, tmp_path / "before" / "home", ignore=shutil.ignore_patterns("online.db*", "registry.db")
    )
    assert_recovers(home, "materialise", online_state)


# Write-back -------------------------------------------------------------------------------------------


def export_state(home: Path) -> State:
    """Every exported table, and the number of stored scores."""
    shop = settings.open_shop(home)
    with engine.read_transaction(shop) as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(schema.scores)).scalar()
    tables = {name: operations.load_table(shop, name) for name in exports.TABLES}
    return {**tables, "stored scores": pd.DataFrame([count])}


def test_a_killed_write_back_recovers(
    first_run_home: Path, tmp_path: Path, assert_recovers: Callable[..., None]
) -> None:
    home = shutil.copytree(first_run_home, tmp_path / "before" / "home")
    with engine.write_transaction(settings.open_shop(home)) as connection:
        connection.execute(schema.scores.delete())
        connection.execute(schema.score_runs.delete())
    assert_recovers(home, "write_back", export_state)


# Nightly run ------------------------------------------------------------------------------------------------


def nightly_state(home: Path) -> State:
    """Everything that a nightly run writes, and temporary files that it should have removed."""
    leftovers = [path.name for path in home.iterdir() if path.name.startswith(".")]
    return {**export_state(home), **champion_state(home), **online_state(home), "leftovers": pd.DataFrame(leftovers)}


def test_a_killed_nightly_run_recovers(
    small_shop_files: Path, tmp_path: Path, assert_recovers: Callable[..., None]
) -> None:
    """The first nightly run of a shop so small that it is short."""
    shop = setup.init_home(tmp_path / "before" / "home", timezone="America/New_York", currency="USD", now="last-sale")
    sales = pd.read_csv(small_shop_files / "transactions.csv", dtype=str)
    few = tmp_path / "few.csv"
    sales[(sales["customer_id"] < "c040") & (sales["sold_at"] < "2025-05-01")].to_csv(few, index=False)
    for kind, path in (("products", small_shop_files / "products.csv"), ("transactions", few)):
        operations.load_records(shop, kind, [path], source="files")
    assert_recovers(shop.home, "run_nightly", nightly_state, kills=1)


# Live sales --------------------------------------------------------------------------------------------


def sale_state(home: Path) -> State:
    """Records, features and scores after the sales; a customer refreshed twice has a time one microsecond later."""
    shop = settings.open_shop(home)
    rows = ledger_state(home)
    rows.pop("rows")
    with engine.read_transaction(shop) as connection:
        queued = connection.execute(sa.select(schema.unrefreshed)).all()
        statuses = connection.execute(sa.select(schema.receipts.c.status)).all()
    keys = lookup.find_keys(shop, [*rows["people"]["customer_id"]])
    features, names = feature_store.open_store(home / "features"), pd.Series(keys.keys(), keys.values())
    frames = {service: features.online_features(service, [*keys.values()]) for service in definitions.SERVICES}
    frames |= {
        task.name: score_store.load_latest_scores(shop, task.name)[["customer_key", "value", "as_of"]] for task in TASKS
    }
    frames = {
        name: rounded(frame.assign(customer_key=frame["customer_key"].map(names))) for name, frame in frames.items()
    }
    return {**rows, **frames, "queued": pd.DataFrame(queued), "statuses": pd.DataFrame(statuses)}


def rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers to six digits, timestamps to the second."""
    timestamps = frame.select_dtypes("datetimetz")
    result = frame.round(6).assign(**{name: timestamps[name].dt.floor("s") for name in timestamps})
    return result.sort_values("customer_key", ignore_index=True)


def sale(order: str, customer: str, *products: str) -> list[dict[str, Any]]:
    """A basket bought on the day after the last recorded sale."""
    return [
        {"order_id": order, "line_id": number, "customer_id": customer, "product_id": product,
         "sold_at": f"2025-07-24T1{number}:30:00", "quantity": 1, "amount": "4.20"}
        for number, product in enumerate(products)
    ]  # fmt: skip


def test_killed_live_sales_recover(first_run_home: Path, tmp_path: Path, assert_recovers: Callable[..., None]) -> None:
    home = shutil.copytree(first_run_home, tmp_path / "before" / "home")
    (home / "till.key").write_text(api_keys.create_key(settings.open_shop(home), "till"))
    sales = [sale("live-1", "c001", "p01", "p02"), sale("live-2", "c002", "p03"), sale("live-3", "newcomer", "novelty")]
    (home / "basket.json").write_text(json.dumps([*sales, sale("live-1", "c001", "p01", "p05")]))
    assert_recovers(home, "live_sale", sale_state)
