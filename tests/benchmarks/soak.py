"""Soak: a shop under load while workers are killed, champions change and the registry is away; what must not happen.

Run it on a copy of a home after a nightly run:

    python tests/benchmarks/soak.py HOME --minutes 10

It reports wrong answers and drops, both of which must be 0, and the memory of the workers over time. A drop is a
request without an answer of a status below 500, other than those that a killed worker was serving.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil

from customers import clock
from customers.security import api_keys
from customers.shop import settings
from customers.shop.settings import Shop
from models.registry import bundle
from serving import server

QUESTIONS = ("churn", "next-purchase", "value", "recommendations", "restock", "offers")
WORKERS, CLIENTS = 2, 4
#: Seconds of unlimited load from which 60 % of the throughput is taken.
CALIBRATION_SECONDS = 8.0
LOAD_SHARE = 0.6
SALE_SHARE = 0.02
MEMORY_CHECK_SECONDS = 5.0
#: Ages of workers, in seconds, whose memory is compared: it must not grow with age.
AGE_BOUNDS = (30, 60, 120, 240, 600)


@dataclass
class SoakReport:
    """What happened: counts of answers by status, and whatever must not happen."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    in_flight_losses: int = 0
    drops: list[str] = field(default_factory=list)
    posted: set[str] = field(default_factory=set)
    milliseconds: list[float] = field(default_factory=list)
    supervisor_mb: list[float] = field(default_factory=list)
    #: Age in seconds of a worker, and its private memory at that age, which no other process shares.
    worker_mb: list[tuple[float, float]] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Soak:
    """One server over a copy of a home, its clients, and the disturbances."""

    def __init__(self, home: Path, port: int) -> None:
        self.shop: Shop = settings.open_shop(home)
        self.home, self.port = home, port
        self.headers = {"Authorization": f"Bearer {api_keys.create_key(self.shop, 'admin')}"}
        self.report = SoakReport()
        self.is_stopping = threading.Event()
        self.killed_at: list[float] = []
        self.customers = _customer_ids(home)
        self.products = _product_ids(home)
        environment = server.build_environment(self.shop, workers=WORKERS)
        # The registry is away all the time: a server must not need it.
        environment |= {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "REGULARS_LOG_LEVEL": "error"}
        self.process = subprocess.Popen(server.build_command(self.shop, port=port), env=environment)
        self.versions = {path.stem: {self._published(path.stem)} for path in (home / "champions").glob("*.json")
                         if "." not in path.stem}  # fmt: skip

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=self.headers, timeout=60)

    def wait_until_ready(self) -> float:
        """Seconds until the first answer."""
        started = time.monotonic()
        with self.client() as client:
            while time.monotonic() - started < 120:
                try:
                    if client.get(f"/v1/customers/{self.customers[0]}/churn").status_code == 200:
                        return time.monotonic() - started
                except httpx.TransportError:
                    time.sleep(0.05)
        raise SystemExit("the server did not start")

    def send(self, client: httpx.Client, choose: random.Random) -> None:
        """One question or sale, its answer checked."""
        is_sale = choose.random() < SALE_SHARE
        started = time.monotonic()
        try:
            response, order_id = self._post_sale(client, choose) if is_sale else self._read(client, choose)
        except httpx.TransportError as error:
            self._count_loss(started, type(error).__name__)
            return
        with self.report.lock:
            self.report.statuses[f"{'sale' if is_sale else 'read'} {response.status_code}"] += 1
            self.report.milliseconds.append((time.monotonic() - started) * 1000)
            if response.status_code >= 500:
                self.report.drops.append(f"{response.status_code} {response.text[:200]}")
            elif is_sale and response.status_code == 200:
                self.report.posted.add(order_id)

    def _read(self, client: httpx.Client, choose: random.Random) -> tuple[httpx.Response, str]:
        question, customer_id = choose.choice(QUESTIONS), choose.choice(self.customers)
        response = client.get(f"/v1/customers/{customer_id}/{question}")
        if response.status_code == 200:
            fault = self._find_fault(question, customer_id, response.json())
            if fault:
                with self.report.lock:
                    self.report.wrong.append(f"{question}: {fault}")
        return response, ""

    def _find_fault(self, question: str, customer_id: str, answer: dict[str, Any]) -> str | None:
        (result,) = answer["results"]
        if result["customer_id"] != customer_id or not result["known"]:
            return "the answer is about another customer"
        for model in answer["models"]:
            if model["version"] not in self.versions[model["name"]]:
                return f"version {model['version']} of {model['name']} was never published"
        if question == "churn" and not 0 <= result["probability"] <= 1:
            return "a probability outside 0 to 1"
        if question == "next-purchase":
            curve = [result["p"][days] for days in ("7", "14", "28", "90")]
            if curve != sorted(curve):
                return "a curve that falls"
        if question == "value" and float(result["expected"]) < 0:
            return "a negative value"
        if question in ("recommendations", "offers"):
            ranks = [item["rank"] for item in result["items"]]
            if ranks != list(range(1, len(ranks) + 1)):
                return "ranks with gaps"
        return None

    def _post_sale(self, client: httpx.Client, choose: random.Random) -> tuple[httpx.Response, str]:
        order_id = f"soak-{uuid4()}"
        sale = {
            "order_id": order_id, "line_id": "1", "customer_id": choose.choice(self.customers), "quantity": 1,
            "product_id": choose.choice(self.products), "amount": "2.00",
            "sold_at": clock.now(self.shop).isoformat(),
        }  # fmt: skip
        return client.post("/v1/transactions", json=sale), order_id

    def _count_loss(self, started: float, error: str) -> None:
        """A broken connection: in flight in a killed worker if one was killed meanwhile, else a drop."""
        ended = time.monotonic()
        with self.report.lock:
            if any(started - 0.2 <= at <= ended for at in self.killed_at):
                self.report.in_flight_losses += 1
            else:
                self.report.drops.append(error)

    def load(self, seconds: float, requests_per_second: float | None) -> int:
        """Ask from CLIENTS clients for some seconds, at a rate or as fast as they can; the number of answers."""
        before = sum(self.report.statuses.values())
        deadline = time.monotonic() + seconds
        threads = [
            threading.Thread(target=self._load_client, args=(number, deadline, requests_per_second))
            for number in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(self.report.statuses.values()) - before

    def _load_client(self, number: int, deadline: float, requests_per_second: float | None) -> None:
        choose, pause = random.Random(number), CLIENTS / requests_per_second if requests_per_second else 0.0
        next_at = time.monotonic()
        with self.client() as client:
            while time.monotonic() < deadline:
                self.send(client, choose)
                next_at = max(next_at + pause, time.monotonic() - 1.0)
                time.sleep(max(0.0, next_at - time.monotonic()))

    def disturb(self, every_seconds: float) -> None:
        """Kill a worker, promote, roll back, in turn; until `is_stopping`."""
        disturbances = [self._kill_worker, self._publish_copies, self._publish_copies]
        turn = 0
        while not self.is_stopping.wait(every_seconds / len(disturbances)):
            disturbances[turn % len(disturbances)]()
            turn += 1

    def watch_memory(self) -> None:
        """Note the memory of supervisor and workers every few seconds; until `is_stopping`."""
        supervisor = psutil.Process(self.process.pid)
        while not self.is_stopping.wait(MEMORY_CHECK_SECONDS):
            self.report.supervisor_mb.append(supervisor.memory_info().rss / 1e6)
            for worker in supervisor.children():
                try:
                    age, size = time.time() - worker.create_time(), worker.memory_full_info().uss / 1e6
                except psutil.NoSuchProcess:  # it was killed in this moment
                    continue
                self.report.worker_mb.append((age, size))

    def _kill_worker(self) -> None:
        workers = psutil.Process(self.process.pid).children()
        if workers:
            self.killed_at.append(time.monotonic())
            os.kill(random.choice(workers).pid, signal.SIGKILL)
            self.report.events["workers killed"] += 1

    def _publish_copies(self) -> None:
        """Publish each champion under another version, or go back to the one before."""
        champions = self.home / "champions"
        for name in sorted(self.versions):
            present = self._published(name)
            other = f"{present}-soak" if not present.endswith("-soak") else present.removesuffix("-soak")
            self.versions[name].add(other)
            with tempfile.TemporaryDirectory(dir=self.home) as folder:
                copy = Path(shutil.copytree(champions / name / present, Path(folder) / "bundle"))
                published = champions / name / other
                if not published.exists():
                    manifest = json.loads((copy / bundle.MANIFEST).read_text())
                    manifest["facts"]["soak"] = other
                    (copy / bundle.MANIFEST).write_text(json.dumps(manifest))
                bundle.publish(published if published.exists() else copy, champions, name, other)
        self.report.events["promotions and rollbacks of all models"] += 1
        self._check_propagation()

    def _check_propagation(self) -> None:
        """Every worker answers with the published version within five seconds, asked until both have."""
        expected, started, agreeing = self._published("churn"), time.monotonic(), 0
        with self.client() as client:
            while agreeing < 20:
                if time.monotonic() - started > 60:
                    self.report.wrong.append("a promotion did not reach every worker within a minute")
                    return
                try:
                    answer = client.get(f"/v1/customers/{self.customers[0]}/churn").json()
                except httpx.TransportError:
                    continue
                agrees = {model["name"]: model["version"] for model in answer["models"]}["churn"] == expected
                agreeing = agreeing + 1 if agrees else 0
        seconds = time.monotonic() - started
        self.report.events["promotions that took more than 5 s"] += seconds > 5

    def _published(self, name: str) -> str:
        pointer = bundle.read_pointer(self.home / "champions", name)
        assert pointer is not None
        return pointer.version

    def count_lost_sales(self) -> int:
        """Acknowledged sales that the ledger does not hold."""
        from sqlalchemy import text

        from customers.database import engine

        with engine.read_transaction(self.shop) as connection:
            query = text("select order_id from transactions where order_id like 'soak-%'")
            stored = set(connection.execute(query).scalars())
        return len(self.report.posted - stored)


def _customer_ids(home: Path) -> list[str]:
    import duckdb

    from customers.people import lookup

    keys = duckdb.sql(f"select distinct customer_key from '{home}/features/rhythm/part.parquet' limit 500").fetchall()
    return sorted(lookup.find_ids(settings.open_shop(home), [key for (key,) in keys]).values())


def _product_ids(home: Path) -> list[str]:
    import duckdb

    from customers.catalogue import products

    keys = duckdb.sql(f"select product_key from '{home}/ledger/products.parquet' limit 200").fetchall()
    return sorted(products.find_ids(settings.open_shop(home), [key for (key,) in keys]).values())


def run(home: Path, minutes: float, port: int) -> dict[str, Any]:
    """Soak a copy of the home; the report."""
    with tempfile.TemporaryDirectory(prefix="regulars-soak-") as folder:
        soak = Soak(Path(shutil.copytree(home, Path(folder) / "home")), port)
        try:
            start_seconds = soak.wait_until_ready()
            soak.load(3.0, None)
            throughput = soak.load(CALIBRATION_SECONDS, None) / CALIBRATION_SECONDS
            soak.report.milliseconds.clear()
            watchers = [threading.Thread(target=soak.disturb, args=(60.0,)), threading.Thread(target=soak.watch_memory)]
            for watcher in watchers:
                watcher.start()
            soak.load(60 * minutes, LOAD_SHARE * throughput)
            soak.is_stopping.set()
            for watcher in watchers:
                watcher.join()
            lost = soak.count_lost_sales()
        finally:
            soak.process.terminate()
            soak.process.wait(30)
    report, times = soak.report, sorted(soak.report.milliseconds)
    return {
        "minutes": minutes,
        "start_to_first_answer_s": round(start_seconds, 1),
        "requests_per_second": round(LOAD_SHARE * throughput, 1),
        "answers": dict(report.statuses),
        "p50_ms": round(times[len(times) // 2], 1),
        "p99_ms": round(times[int(len(times) * 0.99)], 1),
        "wrong_answers": len(report.wrong),
        "drops": len(report.drops),
        "lost_sales": lost,
        "lost_in_flight_of_killed_workers": report.in_flight_losses,
        "events": dict(report.events),
        "examples": [*report.wrong[:5], *report.drops[:5]],
        "supervisor_mb": round(max(report.supervisor_mb), 1),
        "worker_mb_by_age_s": _memory_by_age(report.worker_mb),
    }


def _memory_by_age(samples: list[tuple[float, float]]) -> dict[str, int]:
    """The median private memory of workers, in MB, by their age in seconds."""
    by_age = {}
    for start, end in pairwise(AGE_BOUNDS):
        sizes = [size for age, size in samples if start <= age < end]
        if sizes:
            by_age[f"{start}-{end}"] = round(statistics.median(sizes))
    return by_age


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--port", type=int, default=3899)
    options = parser.parse_args()
    report = run(options.home, options.minutes, options.port)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    sys.exit(bool(report["wrong_answers"] or report["drops"] or report["lost_sales"]))


if __name__ == "__main__":
    main()
