"""Growth benchmark: how the cost of a night rises with the shop, from one to forty times the Complete Journey.

A larger shop consists of copies of every household, each thinned to a random part of its orders, with the products and
offers of the real one. Each size runs in a process of its own; each step is measured by wall time, CPU time and peak of
memory. The growth exponent of a step is log(time ratio) / log(size ratio): 1 is proportional. Run it with
`make growth`; `--sizes 1 4` chooses sizes.
"""

from __future__ import annotations

import os

# As in the command, and before numpy is imported: idle threads do not spin.
os.environ.update(OMP_WAIT_POLICY="PASSIVE", OPENBLAS_NUM_THREADS="1", DO_NOT_TRACK="true")

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from customers import setup
from customers.loading.connectors import complete_journey
from pipelines import demo, operations
from pipelines.nightly import run as nightly_run

SIZES = (1, 4, 16)
#: A copy keeps each order with this probability, so that no copy equals its original.
COPY_ORDER_SHARE = 0.95
#: Columns that name a customer, an order or an interaction, which every copy has for itself.
COPIED_COLUMNS = {
    "customers": ("customer_id",),
    "transactions": ("order_id", "customer_id"),
    "interactions": ("interaction_id", "customer_id"),
    "consents": ("customer_id",),
}


@dataclass(frozen=True)
class StepCost:
    """What one step of one size took: seconds on the wall and of CPU, and the process's peak of memory in it."""

    step: str
    wall: float
    cpu: float
    peak_gib: float


def main() -> None:
    """Measure every size, and print the steps with their growth exponents."""
    arguments = _parse_arguments()
    if arguments.child:
        costs, disk_gib = _measure_size(arguments.child, Path(arguments.folder))
        print(json.dumps({"costs": [asdict(cost) for cost in costs], "disk_gib": disk_gib}))  # noqa: T201
        return
    by_size: dict[int, dict[str, StepCost]] = {}
    for size in arguments.sizes:
        with TemporaryDirectory(prefix="regulars-growth-", dir=arguments.folder) as folder:
            output = subprocess.run(
                [sys.executable, __file__, "--child", str(size), "--folder", folder], check=True, stdout=subprocess.PIPE
            )
        result = json.loads(output.stdout.splitlines()[-1])
        by_size[size] = {cost["step"]: StepCost(**cost) for cost in result["costs"]}
        print(_format_size(size, by_size, result["disk_gib"]), flush=True)  # noqa: T201


def write_records(folder: Path, copies: int) -> None:
    """Write the records of a shop of `copies` times the households, one Parquet file per record kind."""
    complete_journey.write_files(folder)
    if copies == 1:
        return
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'")
        con.execute("set preserve_insertion_order = false")
        for kind, columns in COPIED_COLUMNS.items():
            path = folder / f"{kind}.parquet"
            renamed = ", ".join(f"{column} || '-' || copy as {column}" for column in columns)
            thinned = f"where copy = 0 or hash(order_id, copy) % 1000 < {COPY_ORDER_SHARE * 1000}"
            con.execute(
                f"""copy (select * replace ({renamed}) from '{path}', range({copies}) as copies(copy)
                    {thinned if kind == "transactions" else ""}) to '{path}.new' (format parquet, compression zstd)"""
            )
            Path(f"{path}.new").replace(path)


def _measure_size(copies: int, folder: Path) -> tuple[list[StepCost], float]:
    """The cost of every step of a first night, and the disk space of the home, in GiB."""
    costs: list[StepCost] = []
    write_records(folder / "records", copies)
    shop = setup.init_home(
        folder / "home", timezone=complete_journey.TIMEZONE, currency=complete_journey.CURRENCY, now="last-sale"
    )
    for kind in demo.LOAD_ORDER:
        with _measured(costs, f"load {kind}"):
            operations.load_records(shop, kind, [folder / "records" / f"{kind}.parquet"], source="files")
    shutil.rmtree(folder / "records")
    steps = _StepMeter(costs)
    nightly_run.run_nightly(shop, progress=steps.on_progress)
    steps.finish()
    size = sum(path.stat().st_size for path in shop.home.rglob("*") if path.is_file())
    return costs, size / 2**30


class _StepMeter:
    """Measures the steps of a night between the messages with which it announces them."""

    def __init__(self, costs: list[StepCost]) -> None:
        self.costs = costs
        self.step = ""
        self.started = (0.0, 0.0)

    def on_progress(self, text: str) -> None:
        """Note that a step begins; messages within a step are passed on."""
        _print_progress(text)
        if text.endswith(" ..."):
            self.finish()
            self.step, self.started = text.removesuffix(" ..."), _start_measurement()

    def finish(self) -> None:
        """Record the step that has ended."""
        if self.step:
            self.costs.append(_end_measurement(self.step, self.started))


@contextmanager
def _measured(costs: list[StepCost], step: str) -> Iterator[None]:
    _print_progress(step)
    started = _start_measurement()
    yield
    costs.append(_end_measurement(step, started))


def _start_measurement() -> tuple[float, float]:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak of memory starts anew
    return time.perf_counter(), _cpu_seconds()


def _end_measurement(step: str, started: tuple[float, float]) -> StepCost:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_kib = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    return StepCost(step, time.perf_counter() - started[0], _cpu_seconds() - started[1], peak_kib / 2**20)


def _cpu_seconds() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _format_size(size: int, by_size: dict[int, dict[str, StepCost]], disk_gib: float) -> str:
    first = min(by_size)
    lines = [f"{size}x: the home takes {disk_gib:.2f} GiB"]
    for step, cost in by_size[size].items():
        line = f"  {step:22} {cost.wall:8.1f} s {cost.cpu:8.1f} s CPU {cost.peak_gib:6.2f} GiB at most"
        if size != first and step in by_size[first]:
            exponent = math.log(cost.cpu / max(by_size[first][step].cpu, 0.01)) / math.log(size / first)
            line += f"   exponent {exponent:.2f}"
        lines.append(line)
    return "\n".join(lines)


def _print_progress(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)  # noqa: T201


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How the cost of a night rises with the shop.")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--folder", help="where the shops are made and removed (default: the system's)")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
