"""Sales benchmark: how long after a sale is posted the customer's answer includes it, at a steady rate of sales.

One server process serves a copy of a home with a finished nightly run, given by `--home`. Sales of different customers
are posted at `--rate` a second, whether or not earlier ones are answered. A sale is visible when its response says that
every answer includes it. Of `--verified` of them the customer is read then, and of all whose response does not say so,
until the answer is of features that are newer than the night's. A sale is lost where it was accepted and the ledger
does not hold it, where its answer does not change within a minute, or where it was not as its response said. `--json`
writes one JSON object instead of the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson
import sqlalchemy as sa
import uvloop
from answers import Result, RunningServer, format_table, running_server

from customers import clock
from customers.catalogue import products
from customers.database import engine
from customers.shop import settings
from customers.shop.settings import Shop

AIM_P95_MS = 300.0
VISIBLE_WITHIN_SECONDS = 60.0
POLL_SECONDS = 0.02
ORDER_PREFIX = "benchmark-"


@dataclass(frozen=True)
class Sale:
    """What happened to one sale: status of its response, and milliseconds until it was stored, and visible."""

    order_id: str
    status: int
    stored_ms: float
    visible_ms: float | None


class SalesGenerator:
    """Posts sales to a server at a steady rate, over as many connections as there are sales under way."""

    def __init__(self, running: RunningServer, question: str, verified_share: float) -> None:
        self.running = running
        self.question = question
        self.verified_share = verified_share
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def post_all(self, sales: list[dict[str, Any]], rate: float) -> list[Sale]:
        """Post each of these records, `rate` of them a second; returns what happened to each."""
        return uvloop.run(self._post_all(sales, rate))

    async def _post_all(self, sales: list[dict[str, Any]], rate: float) -> list[Sale]:
        self._idle.clear()  # those of an earlier event loop are of no use
        loop = asyncio.get_running_loop()
        started, tasks = loop.time(), []
        for number, record in enumerate(sales):
            due = started + number / rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            tasks.append(asyncio.create_task(self._post(record, due)))
        return await asyncio.gather(*tasks)

    async def _post(self, record: dict[str, Any], due: float) -> Sale:
        loop = asyncio.get_running_loop()
        status, response = await self._send(self.running.post_records("transactions", record))
        stored_ms = (loop.time() - due) * 1000
        if status != 200:
            return Sale(record["order_id"], status, stored_ms, None)
        if response["refreshed"]:
            is_verified = random.random() >= self.verified_share or await self._is_visible(record)
            return Sale(record["order_id"], status, stored_ms, stored_ms if is_verified else None)
        while loop.time() < due + VISIBLE_WITHIN_SECONDS:
            if await self._is_visible(record):
                return Sale(record["order_id"], status, stored_ms, (loop.time() - due) * 1000)
            await asyncio.sleep(POLL_SECONDS)
        return Sale(record["order_id"], status, stored_ms, None)

    async def _is_visible(self, record: dict[str, Any]) -> bool:
        _, answer = await self._send(self.running.get(self.question, record["customer_id"]))
        features_as_of = datetime.fromisoformat(answer["results"][0]["features_as_of"])
        return features_as_of > datetime.fromisoformat(self.running.night_as_of)

    async def _send(self, request: bytes) -> tuple[int, dict[str, Any]]:
        async with self._connection() as (reader, writer):
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            start = head.index(b"content-length:") + 15
            body = await reader.readexactly(int(head[start : head.index(b"\r", start)]))
            return int(head[9:12]), orjson.loads(body)

    @asynccontextmanager
    async def _connection(self) -> Any:
        connection = (
            self._idle.pop()
            if self._idle
            else await asyncio.open_connection("127.0.0.1", self.running.port, limit=2**26)
        )
        yield connection
        self._idle.append(connection)


def build_sales(shop: Shop, customer_ids: list[str], count: int) -> Iterator[dict[str, Any]]:
    """Records of one line each, of different customers, at the shop's present time."""
    ledger = shop.home / "ledger" / "products.parquet"
    keys = [key for (key,) in duckdb.sql(f"select product_key from '{ledger}' limit 500").fetchall()]
    product_ids = sorted(products.find_ids(shop, keys).values())
    sold_at = clock.now(shop).isoformat()
    for number, customer_id in enumerate(random.sample(customer_ids, count)):
        yield {
            "order_id": f"{ORDER_PREFIX}{number}", "line_id": "1", "customer_id": customer_id, "quantity": 1,
            "product_id": random.choice(product_ids), "amount": "2.00", "sold_at": sold_at,
        }  # fmt: skip


def count_stored(shop: Shop) -> int:
    """How many of the benchmark's orders the ledger holds."""
    query = sa.text(f"select count(distinct order_id) from transactions where order_id like '{ORDER_PREFIX}%'")
    with engine.read_transaction(shop) as connection:
        return int(connection.execute(query).scalar_one())


def measure_sales(
    running: RunningServer, rate: float, seconds: float, question: str = "churn", verified_share: float = 0.1
) -> list[Result]:
    """Latency until a sale is stored and until it is visible, and the sales that were refused or lost."""
    shop = settings.open_shop(running.home)
    records = list(build_sales(shop, running.customer_ids, int(rate * seconds)))
    generator = SalesGenerator(running, question, verified_share)
    generator.post_all([{**records[0], "order_id": f"{ORDER_PREFIX}first"}], rate)  # loads what a sale needs
    sales = generator.post_all(records, rate)
    accepted = [sale for sale in sales if sale.status == 200]
    visible = [sale.visible_ms for sale in accepted if sale.visible_ms is not None]
    lost = len(accepted) - min(len(visible), count_stored(shop) - 1)
    name = f"{rate:g} sales a second"
    p95 = _quantile(visible, 0.95)
    return [
        Result(f"{name}: new answer, p95", f"{p95:,.0f} ms", "-", None, f"<= {AIM_P95_MS:g} ms", p95 <= AIM_P95_MS),
        Result(f"{name}: new answer, p50", f"{_quantile(visible, 0.5):,.0f} ms", "-", None, "-", True),
        Result(f"{name}: stored, p95", f"{_quantile([s.stored_ms for s in accepted], 0.95):,.0f} ms", "-", None, "-",
               True),
        Result(f"{name}: refused", f"{len(sales) - len(accepted)} of {len(sales)}", "-", None, "0",
               len(accepted) == len(sales)),
        Result(f"{name}: lost", f"{lost}", "-", None, "0", lost == 0),
    ]  # fmt: skip


def _quantile(values: list[float], share: float) -> float:
    if len(values) < 2:
        return float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="a home with a finished nightly run; it is copied")
    parser.add_argument("--rate", type=float, default=50.0, help="sales a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--question", default="churn", help="the read that must include the sale")
    parser.add_argument("--verified", type=float, default=0.1, help="the share of sales whose customers are read")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with running_server(arguments.home) as running:
        results = measure_sales(running, arguments.rate, arguments.seconds, arguments.question, arguments.verified)
    text = json.dumps([asdict(row) for row in results], indent=2) if arguments.json else format_table(results)
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
