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


def count(beads: Path) -> None:
    """A bead for every commit that changed something, in any SQLite file, and for every file renamed into place."""
    string = os.open(beads, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    connect = sqlite3.connect

    def watched(*place: Any, **settings: Any) -> sqlite3.Connection:
        file = connect(*place, **settings)
        seen = [file.total_changes]

        def hear(statement: str) -> None:
            if statement[:6].upper() == "COMMIT" and file.total_changes > seen[0]:
                seen[0] = file.total_changes
                os.write(string, b".")

        file.set_trace_callback(hear)
        return file

    def notice(event: str, _: tuple) -> None:
        if event == "os.rename":
            os.write(string, b".")

    sqlite3.connect = sqlite3.dbapi2.connect = watched
    sys.addaudithook(notice)


def silent(text: str) -> None:
    """Nobody watches."""


def load(home: Path) -> None:
    """Customers, products and sales, in slices small enough to be killed between."""
    from customers import enrolment, orders, shop
    from pipelines import steps

    enrolment.SLICE, orders.SLICE = 10, 100
    for kind in ("customers", "products", "transactions"):
        steps.ingest(shop.open(home), kind, [home.parent / f"{kind}.csv"], source="files")


def promote(home: Path) -> None:
    """The newest version of every model becomes champion."""
    from customers import shop
    from models import registry
    from training import promote
    from training.plans import PLANS

    here = shop.open(home)
    for plan in PLANS:
        newest = registry.versions(promote.address(here), plan.name)[-1]
        promote.promote(here, plan.name, version=newest, why="by hand")


def materialise(home: Path) -> None:
    """The features of the shop's now go into the online store."""
    from customers import clock, shop
    from features import store

    here = shop.open(home)
    features = store.open(home / "features", here.online_store)
    features.apply()
    features.materialise(clock.now(here))


def night(home: Path) -> None:
    """A whole night."""
    from customers import shop
    from pipelines import night

    night.run(shop.open(home), tell=silent)


def write_back(home: Path) -> None:
    """The champions as they are score everybody."""
    from customers import shop
    from serving import desk, fresh, writeback

    here = desk.of(shop.open(home))
    here.features.apply()
    champions = {name: here.champion(name) for name in desk.MODELS}
    stand_ins = [name for name, champion in champions.items() if fresh.stands_in(champion)]
    speakers = {name: (champion.version, champion.model) for name, champion in champions.items()}
    writeback.everyone(here.shop, here.features, speakers, here.now(), stand_ins=stand_ins)


def live_sale(home: Path) -> None:
    """Sales at the till, one after another, of customers and products old and new; each waits for its answer."""
    os.environ["REGULARS_HOME"] = str(home)
    from starlette.testclient import TestClient

    from serving.service import Regulars

    door = {"Authorization": f"Bearer {(home / 'till.key').read_text()}"}
    with TestClient(Regulars.to_asgi(), raise_server_exceptions=False) as till:
        for number, lines in enumerate(json.loads((home / "basket.json").read_text())):
            answer = till.post("/v1/transactions", json=lines, headers={**door, "Idempotency-Key": f"sale-{number}"})
            assert answer.status_code == 200, answer.text
            assert answer.json()["refreshed"], "the figures follow before the answer is given"


if "ACT" in globals():
    warnings.simplefilter("ignore")
    tqdm.set_lock(threading.RLock())  # its own is the system's, and would outlive whoever is killed
    if "BEADS" in globals():
        count(globals()["BEADS"])
    globals()[globals()["ACT"]](globals()["HOME"])
