"""A shop that is killed at any moment, and does again what it was doing, stands where an undisturbed one stands."""

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
from customers.loading import load as loading_load
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

MORTAL = Path(__file__).parents[1] / "killable_process.py"
#: How often each act is killed, at least; `make torture` asks for twenty.
KILLS = int(os.environ.get("KILLS", "0"))
#: Imported once, in a program that does nothing but fork: each act then begins at once.
HEAVY = (
    "pipelines.nightly.run", "pipelines.operations", "serving.service", "starlette.testclient", "features.store.online_sqlite", "lightgbm",
    "feast", "feast.infra.offline_stores.duckdb", "ibis.backends.duckdb", "mlflow", "mlflow.store.db.utils",
)  # fmt: skip
ANEW = multiprocessing.get_context("forkserver")
ANEW.set_forkserver_preload(list(HEAVY))

State = dict[str, pd.DataFrame]


class Stage:
    """A home before an act, and how the act is played on copies of it."""

    def __init__(self, before: Path, act: str, state: Callable[[Path], State], folder: Path) -> None:
        self.before, self.act, self.state, self.folder = before, act, state, folder
        self.random = np.random.default_rng(11)
        clean = self.copy("clean")
        self.total = self.play(clean, kill_after=None)
        self.expected = state(clean)

    def copy(self, name: str) -> Path:
        for file in self.before.parent.glob("*.csv"):
            (self.folder / name).mkdir(exist_ok=True)
            shutil.copy(file, self.folder / name)
        return shutil.copytree(self.before, self.folder / name / "home")

    def play(self, home: Path, *, kill_after: int | None) -> int:
        """Play the act until its end, or until so many beads have dropped; how many have."""
        beads = home.parent / "beads"
        beads.write_bytes(b"")
        told = {"HOME": home, "ACT": self.act, "BEADS": beads}
        actor = ANEW.Process(target=runpy.run_path, args=(str(MORTAL),), kwargs={"init_globals": told})
        actor.start()
        while kill_after is not None and beads.stat().st_size < kill_after and not wait([actor.sentinel], 0.0005):
            pass
        if kill_after is not None:
            time.sleep(self.random.uniform(0, 0.01))  # just before a commit, in it, or some way after
            actor.kill()
        actor.join()
        assert kill_after is not None or actor.exitcode == 0
        return beads.stat().st_size

    def torture(self, kills: int) -> list[int]:
        """Kill the act at random beads, play it again to its end, and compare; how many beads there were each time."""
        reached = []
        for number in range(kills):
            home = self.copy(f"kill-{number}")
            reached.append(self.play(home, kill_after=int(self.random.integers(1, self.total))))
            self.play(home, kill_after=None)
            found = self.state(home)
            for name, frame in self.expected.items():
                pd.testing.assert_frame_equal(found[name], frame, obj=f"{name} after {reached[-1]} of {self.total}")
            shutil.rmtree(home.parent)
        return reached


@pytest.fixture
def torture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Kills an act again and again: torture(before, act, state). Three kills in four land among its commits."""

    def play(before: Path, act: str, state: Callable[[Path], State], *, kills: int = 2) -> None:
        kills = max(kills, KILLS)
        stage = Stage(before, act, state, tmp_path)
        reached = stage.torture(kills)
        among = sum(1 <= beads < stage.total for beads in reached)
        with capsys.disabled():
            sys.stdout.write(
                f"\n{act}: {among} of {kills} kills between the first and the last of {stage.total} commits "
            )
        assert among >= 3 * kills / 4

    return play


# Load -------------------------------------------------------------------------------------------------

WHO, WHAT = "customer_id", "product_id"
LINES = """select t.*, i.customer_id, p.product_id from {table} t left join identities i using (customer_key)
           join products p using (product_key) order by order_id, line_id, known_at"""


def ledger(home: Path) -> State:
    """What the shop remembers, by the ids of the till: keys are dealt out at random."""
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
        held = {name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar()
                for name, table in schema.metadata.tables.items()}  # fmt: skip
    mirrored = pq.ParquetDataset(sorted((home / "ledger").glob("month=*/part.parquet"))).read().to_pandas()
    mirrored = mirrored.merge(people, how="left", on="customer_key").drop(columns=[*keys, "order_key"], errors="ignore")
    return {
        "lines": lines.drop(columns=keys), "history": history.drop(columns=keys),
        "people": people.drop(columns="customer_key").sort_values(WHO, ignore_index=True),
        "mirror": mirrored.sort_values(mirrored.columns.tolist(), ignore_index=True),
        "still to mirror": pd.DataFrame({"month": mirror.refresh(shop)}),
        "rows": pd.DataFrame(held.items()),
    }  # fmt: skip


def test_a_load(small_shop_files: Path, tmp_path: Path, torture: Callable[..., None]) -> None:
    """Half of the customers are known and a night has seen them; now lines have changed, gone, and come."""
    shop = setup.init_home(tmp_path / "before" / "home", timezone="America/New_York", currency="USD", now="last-sale")
    known, all_of_them = small_shop_files / "transactions.csv", tmp_path / "before" / "transactions.csv"
    sales = pd.read_csv(known, dtype=str)
    sales = sales[sales[WHO] < "c060"]
    sales[sales[WHO] < "c030"].to_csv(all_of_them, index=False)
    loading_load.load_files(shop, "transactions", [all_of_them])
    watermark.record_run_start(shop, clock.now(shop))
    sales["amount"] = sales["amount"].where(sales[WHAT] != "p07", "9.99")
    sales[(sales[WHAT] != "p08") | (sales[WHO] >= "c010")].to_csv(all_of_them, index=False)
    for kind in ("customers", "products"):
        shutil.copy(small_shop_files / f"{kind}.csv", tmp_path / "before")
    torture(shop.home, "load", ledger, kills=4)


# Promotion --------------------------------------------------------------------------------------------


def speakers(home: Path) -> State:
    """Who speaks for the shop, as the registry, the servers and the log have it."""
    shop = settings.open_shop(home)
    uri = promotion.registry_uri(shop)
    rows = [
        (plan.name, mlflow_registry.list_versions(uri, plan.name), mlflow_registry.version_by_alias(uri, plan.name, "champion"),
         mlflow_registry.version_by_alias(uri, plan.name, "challenger"), published(shop, plan.name))
        for plan in TASKS
    ]  # fmt: skip
    log = [(move.name, move.version, move.previous, move.action, move.why) for move in promotion_log.load_history(shop)]
    return {"speakers": pd.DataFrame(rows), "log": pd.DataFrame(log)}


def published(shop: Shop, name: str) -> str | None:
    champion = bundle.open_champion(shop.home / "champions", name)
    return champion.version if champion else None


def test_a_promotion(first_night_home: Path, tmp_path: Path, torture: Callable[..., None]) -> None:
    home = shutil.copytree(first_night_home, tmp_path / "before" / "home")
    uri = promotion.registry_uri(settings.open_shop(home))
    for plan in TASKS:
        champion = mlflow_registry.version_by_alias(uri, plan.name, "champion")
        recorded = mlflow_registry.get_version(uri, plan.name, champion)
        folder = home / "champions" / plan.name / champion
        version, _ = mlflow_registry.register_version(
            uri, plan.name, folder, params=recorded.params, tags=recorded.tags
        )
        mlflow_registry.set_alias(uri, plan.name, "challenger", version)
    torture(home, "promote", speakers)


# Materialise ------------------------------------------------------------------------------------------


def drawer(home: Path) -> State:
    """What lies ready for every customer."""
    features = feature_store.open_store(home / "features")
    rows = pq.read_table(home / "features" / "rhythm" / "part.parquet", columns=["customer_key"])
    keys = sorted(set(rows["customer_key"].to_pylist()))
    return {service: features.online_features(service, keys) for service in definitions.SERVICES}


def test_a_materialisation(first_night_home: Path, tmp_path: Path, torture: Callable[..., None]) -> None:
    home = shutil.copytree(
        first_night_home, tmp_path / "before" / "home", ignore=shutil.ignore_patterns("online.db*", "registry.db")
    )
    torture(home, "materialise", drawer)


# Write-back -------------------------------------------------------------------------------------------


def said(home: Path) -> State:
    """Every table that other programs get."""
    shop = settings.open_shop(home)
    with engine.read_transaction(shop) as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(schema.scores)).scalar()
    told = {name: operations.load_table(shop, name) for name in exports.TABLES}
    return {**told, "scores held": pd.DataFrame([count])}


def test_a_write_back(first_night_home: Path, tmp_path: Path, torture: Callable[..., None]) -> None:
    home = shutil.copytree(first_night_home, tmp_path / "before" / "home")
    with engine.write_transaction(settings.open_shop(home)) as connection:
        connection.execute(schema.scores.delete())
        connection.execute(schema.score_runs.delete())
    torture(home, "write_back", said)


# Night ------------------------------------------------------------------------------------------------


def morning(home: Path) -> State:
    """All that a night leaves behind."""
    left = [path.name for path in home.iterdir() if path.name.startswith(".")]
    return {**said(home), **speakers(home), **drawer(home), "left lying": pd.DataFrame(left)}


def test_a_night(small_shop_files: Path, tmp_path: Path, torture: Callable[..., None]) -> None:
    """Its first one, of a shop so small that a whole night is soon over."""
    shop = setup.init_home(tmp_path / "before" / "home", timezone="America/New_York", currency="USD", now="last-sale")
    sales = pd.read_csv(small_shop_files / "transactions.csv", dtype=str)
    few = tmp_path / "few.csv"
    sales[(sales[WHO] < "c040") & (sales["sold_at"] < "2025-05-01")].to_csv(few, index=False)
    for kind, path in (("products", small_shop_files / "products.csv"), ("transactions", few)):
        operations.load_records(shop, kind, [path], source="files")
    torture(shop.home, "run_nightly", morning, kills=1)


# Live sale --------------------------------------------------------------------------------------------


def after_sales(home: Path) -> State:
    """What is known and said after the sales. Of whom was seen to twice the moment is a microsecond later."""
    shop = settings.open_shop(home)
    rows = ledger(home)
    rows.pop("rows")
    with engine.read_transaction(shop) as connection:
        lagging = connection.execute(sa.select(schema.unrefreshed)).all()
        answered = connection.execute(sa.select(schema.receipts.c.status)).all()
    keys = lookup.find_keys(shop, [*rows["people"][WHO]])
    features, names = feature_store.open_store(home / "features"), pd.Series(keys.keys(), keys.values())
    shown = {service: features.online_features(service, [*keys.values()]) for service in definitions.SERVICES}
    shown |= {
        plan.name: score_store.load_latest_scores(shop, plan.name)[["customer_key", "value", "as_of"]] for plan in TASKS
    }
    shown = {
        name: rounded(frame.assign(customer_key=frame["customer_key"].map(names))) for name, frame in shown.items()
    }
    return {**rows, **shown, "lagging": pd.DataFrame(lagging), "answered": pd.DataFrame(answered)}


def rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """As people see it: days to six digits, moments to the second."""
    moments = frame.select_dtypes("datetimetz")
    seen = frame.round(6).assign(**{name: moments[name].dt.floor("s") for name in moments})
    return seen.sort_values("customer_key", ignore_index=True)


def sale(order: str, customer: str, *products: str) -> list[dict[str, Any]]:
    """A basket bought on the day after the last one that the shop knows."""
    return [
        {"order_id": order, "line_id": number, "customer_id": customer, "product_id": product,
         "sold_at": f"2025-07-24T1{number}:30:00", "quantity": 1, "amount": "4.20"}
        for number, product in enumerate(products)
    ]  # fmt: skip


def test_a_live_sale(first_night_home: Path, tmp_path: Path, torture: Callable[..., None]) -> None:
    home = shutil.copytree(first_night_home, tmp_path / "before" / "home")
    (home / "till.key").write_text(api_keys.create_key(settings.open_shop(home), "till"))
    sales = [sale("live-1", "c001", "p01", "p02"), sale("live-2", "c002", "p03"), sale("live-3", "newcomer", "novelty")]
    (home / "basket.json").write_text(json.dumps([*sales, sale("live-1", "c001", "p01", "p05")]))
    torture(home, "live_sale", after_sales)
