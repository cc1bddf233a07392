"""Lookup benchmark at the size of a large shop: a million customers with a list of 50 products each.

It serves a copy of a home with a finished nightly run, given by `--home`, to which customers are added: each has the
first list of a real one in the arrays. 10,000 customers at a time are asked for their top ten over one connection.
References in the same run: numpy picking the same ten products of the same customers out of arrays in memory, alone and
with the encoding of what it picked as JSON. A worker's memory, the arrays that it has mapped included, is compared with
the size of the arrays. `--json` writes one JSON object instead of the table.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import sqlalchemy as sa
from answers import LoadGenerator, Result, RunningServer, format_table, running_server
from numpy.typing import NDArray

from customers.catalogue import products
from customers.database import engine
from customers.shop import settings
from customers.shop.settings import Shop
from serving.arrays import night_arrays
from serving.arrays.column_files import ColumnWriter, ListColumns
from serving.arrays.night_arrays import NightArrays

AIM_RATIO, AIM_MEMORY_RATIO = 0.5, 1.5
REQUESTED, LENGTH, DEPTH = 10_000, 10, 50
LIST_NAMES = ("any", "again", "new")
#: Added customers have keys and ids of their own.
FIRST_KEY, ID_PREFIX = 5_000_000_000, "w"
ROWS_AT_ONCE = 50_000


def add_customers(shop: Shop, count: int) -> None:
    """Add so many customers without purchases to the database."""
    numbers = f"with recursive n(i) as (select 0 union all select i + 1 from n where i + 1 < {count})"
    with engine.write_transaction(shop) as connection:
        connection.execute(
            sa.text(
                f"insert into customers (customer_key, stage, made_at) {numbers} "
                f"select {FIRST_KEY} + i, 'prospect', 0 from n"
            )
        )
        connection.execute(
            sa.text(
                f"insert into identities (customer_id, source, customer_key) {numbers} "
                f"select '{ID_PREFIX}' || i, 'files', {FIRST_KEY} + i from n"
            )
        )


def write_arrays(home: Path, count: int) -> NightArrays:
    """Publish arrays of the added customers, who have the first lists of the real ones in turn."""
    real = night_arrays.load(home, "recommender")
    assert real is not None
    with_whole_list = np.flatnonzero(np.diff(real.columns["any.offsets"]) == DEPTH)
    writer = night_arrays.begin(home, "recommender")
    for start in range(0, count, ROWS_AT_ONCE):
        numbers = np.arange(start, min(start + ROWS_AT_ONCE, count))
        _append_rows(writer, real, with_whole_list[numbers % len(with_whole_list)], numbers)
    night_arrays.publish(home, writer, real.facts)
    published = night_arrays.load(home, "recommender")
    assert published is not None
    return published


def _append_rows(writer: ColumnWriter, real: NightArrays, rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
    columns = {name: real.columns[name][rows] for name in ("as_of", "fallback", "shortage")}
    columns["consent_count"] = np.zeros(len(rows), np.int32)  # they have made no statement
    columns["customer_key"] = FIRST_KEY + numbers
    places = (real.columns["any.offsets"][rows][:, None] + np.arange(DEPTH)).ravel()
    names = ("product_key", "score", "source", "evidence", "word")
    lists = {
        name: ListColumns(
            np.full(len(rows), DEPTH if name == "any" else 0),
            {column: real.columns[f"{name}.{column}"][places if name == "any" else places[:0]] for column in names},
        )
        for name in LIST_NAMES
    }
    writer.append(columns, lists)


class NumpyReference:
    """The same top ten out of arrays in memory, by numpy."""

    def __init__(self, shop: Shop, arrays: NightArrays, count: int) -> None:
        self.keys = np.array(arrays.columns["any.product_key"]).reshape(count, DEPTH)
        self.scores = np.array(arrays.columns["any.score"]).reshape(count, DEPTH)
        self.product_keys = np.unique(self.keys)
        ids = products.find_ids(shop, self.product_keys.tolist())
        self.product_ids = np.array([ids[key] for key in self.product_keys.tolist()], object)
        self.row_by_id = {f"{ID_PREFIX}{number}": number for number in range(count)}

    def pick(self, customer_ids: list[str]) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
        """Ids and scores of the ten first products, (n_customers, LENGTH) each."""
        rows = np.array([self.row_by_id[name] for name in customer_ids])
        keys = self.keys[rows, :LENGTH]
        return self.product_ids[np.searchsorted(self.product_keys, keys)], self.scores[rows, :LENGTH]

    def pick_and_encode(self, customer_ids: list[str]) -> bytes:
        """The same as JSON, with the ranks."""
        ids, scores = self.pick(customer_ids)
        ranks = range(1, LENGTH + 1)
        return orjson.dumps(
            [
                {
                    "customer_id": name,
                    "items": [
                        {"rank": rank, "product_id": product_id, "score": score}
                        for rank, product_id, score in zip(ranks, own_ids, own_scores, strict=True)
                    ],
                }
                for name, own_ids, own_scores in zip(customer_ids, ids.tolist(), scores.tolist(), strict=True)
            ]
        )


def measure(running: RunningServer, reference: NumpyReference, size_bytes: int, seconds: float) -> list[Result]:
    """Customers a second over HTTP as shares of the references, and the memory of the worker."""
    names = [random.sample(running.customer_ids, REQUESTED) for _ in range(4)]
    requests = [running.post("recommendations", each) for each in names]
    generator = LoadGenerator(running.port, 1)
    generator.burst(requests, 1.0)
    rounds = [
        (
            generator.burst(requests, seconds),
            _per_second(lambda: reference.pick(random.choice(names)), seconds / 4),
            _per_second(lambda: reference.pick_and_encode(random.choice(names)), seconds / 2),
        )
        for _ in range(3)
    ]
    assert not any(load.errors for load, *_ in rounds)
    ours = statistics.median(load.per_second for load, *_ in rounds) * REQUESTED
    results = []
    for position, name in ((1, "numpy, picked"), (2, "numpy, picked and encoded")):
        against = statistics.median(each[position] for each in rounds) * REQUESTED
        ratio = statistics.median(each[0].per_second / each[position] for each in rounds)
        results.append(
            Result(f"top {LENGTH} of {REQUESTED:,}", f"{ours:,.0f} customers/s", f"{name}: {against:,.0f}/s", ratio,
                   f">= {AIM_RATIO}x", ratio >= AIM_RATIO)
        )  # fmt: skip
    everyone = [running.post("recommendations", running.customer_ids[start : start + REQUESTED])
                for start in range(0, len(running.customer_ids), REQUESTED)]  # fmt: skip
    generator.burst(everyone, 2 * seconds)
    private, mapped = running.memory_mb(), _mapped_mb(running)
    ratio = (private + mapped) * 1e6 / size_bytes
    figure = f"{private:,.0f} MB and {mapped:,.0f} MB mapped"
    results.append(
        Result("memory of a worker", figure, f"arrays {size_bytes / 1e6:,.0f} MB", ratio, f"<= {AIM_MEMORY_RATIO}x",
               ratio <= AIM_MEMORY_RATIO)
    )  # fmt: skip
    return results


def _per_second(work: Callable[[], Any], seconds: float) -> float:
    started, count = time.perf_counter(), 0
    while time.perf_counter() < started + seconds:
        work()
        count += 1
    return count / (time.perf_counter() - started)


def _mapped_mb(running: RunningServer) -> float:
    """What the worker has of the arrays in memory, in MB."""
    total_kb, is_array = 0, False
    for line in Path(f"/proc/{running.process.pid}/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            is_array = "/lookup/" in line
        elif is_array and line.startswith("Rss:"):
            total_kb += int(line.split()[1])
    return total_kb / 1024


def wide_server(source_home: Path, folder: Path, count: int) -> tuple[AbstractContextManager[RunningServer], Path]:
    """A server of a copy of this home with so many customers more, and that copy."""
    home = folder / "wide"
    shutil.copytree(source_home, home)
    add_customers(settings.open_shop(home), count)
    write_arrays(home, count)
    return running_server(home, customer_ids=[f"{ID_PREFIX}{number}" for number in range(count)]), home


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="a home with a finished nightly run; it is copied")
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="regulars-wide-") as folder:
        server_context, home = wide_server(arguments.home, Path(folder), arguments.customers)
        arrays = night_arrays.load(home, "recommender")
        assert arrays is not None
        size_bytes = sum(path.stat().st_size for path in arrays.folder.iterdir())
        reference = NumpyReference(settings.open_shop(home), arrays, arguments.customers)
        with server_context as running:
            results = measure(running, reference, size_bytes, arguments.seconds)
    text = json.dumps([asdict(row) for row in results], indent=2) if arguments.json else format_table(results)
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
