"""Features on Spark beside DuckDB: wall time, CPU time and memory of one snapshot of the same ledger, and their ratio.

Spark runs on this machine with two tasks at a time (`local[2]`) in a Java process of 4 GB, and each task's DuckDB with
one thread; DuckDB alone runs with two threads. Both have their usual limit of memory. A larger shop consists of copies
of every household, thinned as in `growth.py`. Run it with `tests/benchmarks/spark_features.py --sizes 1 4`. A first
snapshot includes the start of Spark and its compilation; with `--warm`, the second of two is measured.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="2", OMP_WAIT_POLICY="PASSIVE", DO_NOT_TRACK="true")

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import growth

from customers import setup
from customers.loading.connectors import complete_journey
from customers.parquet import mirror
from features.snapshots import snapshot
from pipelines import demo, operations

ENGINES = ("duckdb", "spark")
AS_OF = datetime(2018, 1, 1, 5, tzinfo=UTC)
CUTOFFS = [AS_OF - timedelta(days=28 * back) for back in range(12)]
LIST_CUTOFFS = CUTOFFS[:4]
#: Larger than any key of one copy.
KEY_STEP = 10**7


def main() -> None:
    """Measure every size, and print a row for each engine with the ratio of Spark to DuckDB."""
    arguments = _parse_arguments()
    if arguments.child:
        print(json.dumps(_measure(arguments.child, Path(arguments.folder), arguments.runs)))  # noqa: T201
        return
    with TemporaryDirectory(prefix="regulars-spark-", dir=arguments.folder) as folder:
        base = _write_mirror(Path(folder))
        for size in arguments.sizes:
            ledger = _copy_households(base, Path(folder) / f"ledger-{size}", size)
            costs = {engine: _run_child(engine, ledger, 2 if arguments.warm else 1) for engine in ENGINES}
            print(_format_size(size, costs), flush=True)  # noqa: T201


def _write_mirror(folder: Path) -> Path:
    """The mirror of the Complete Journey."""
    growth.write_records(folder / "records", 1)
    shop = setup.init_home(folder / "home", timezone=complete_journey.TIMEZONE, currency=complete_journey.CURRENCY)
    for kind in demo.LOAD_ORDER:
        operations.load_records(shop, kind, [folder / "records" / f"{kind}.parquet"], source="files")
    mirror.refresh(shop)
    return shop.home / "ledger"


def _copy_households(base: Path, out: Path, copies: int) -> Path:
    """A mirror with `copies` of every household; each copy but the first keeps a random part of its orders."""
    share = growth.COPY_ORDER_SHARE * 1000
    new_keys = f"customer_key + copy * {KEY_STEP} as customer_key"
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'; set preserve_insertion_order = false; set memory_limit = '2GB'")
        for path in sorted(base.glob("month=*/part.parquet")):
            _copy_query(
                con,
                f"""select * replace ({new_keys}, order_key + copy * {KEY_STEP} as order_key)
                from read_parquet('{path}', hive_partitioning = false), range({copies}) as copies(copy)
                where copy = 0 or hash(order_key, copy) % 1000 < {share}""",
                out / path.parent.name / path.name,
            )
        for name in ("interactions", "consents"):
            query = f"select * replace ({new_keys}) from '{base / name}.parquet', range({copies}) as copies(copy)"
            _copy_query(con, query, out / f"{name}.parquet")
        _copy_query(con, f"from '{base / 'products.parquet'}'", out / "products.parquet")
    return out


def _copy_query(con: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = "* exclude (copy)" if "copies" in query else "*"
    con.execute(f"copy (select {columns} from ({query})) to '{path}' (format parquet, compression zstd)")


def _run_child(engine: str, ledger: Path, runs: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", engine, "--folder", str(ledger), "--runs", str(runs)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(output.stdout.splitlines()[-1])


def _measure(engine: str, ledger: Path, runs: int) -> dict[str, float]:
    """Wall and CPU seconds of the last of some snapshots, and the peaks of memory of all processes together, in GiB."""
    for _ in range(runs):
        wall, cpu = time.perf_counter(), _cpu_seconds()
        with TemporaryDirectory(prefix="out-", dir=ledger.parent) as out:
            counts = snapshot.write_snapshot(
                ledger, Path(out), as_of=AS_OF, cutoffs=CUTOFFS, list_cutoffs=LIST_CUTOFFS,
                timezone=complete_journey.TIMEZONE, engine=engine,
            )  # fmt: skip
    return {
        "wall": time.perf_counter() - wall,
        "cpu": _cpu_seconds() - cpu,
        "gib": sum(_peak_gib(pid) for pid in _list_processes()),
        "rows": sum(counts.values()),
    }


def _cpu_seconds() -> float:
    """CPU time of this process, of Java and of the tasks, and of those of them that have ended."""
    ticks = sum(sum(map(int, _read_stat(pid)[11:15])) for pid in _list_processes())
    return ticks / os.sysconf("SC_CLK_TCK")


def _peak_gib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def _list_processes() -> list[int]:
    """This process, and all that descend from it."""
    parents = {int(path.name): int(_read_stat(path.name)[1]) for path in Path("/proc").glob("[0-9]*")}
    processes = [os.getpid()]
    for pid in processes:  # grows while it is read
        processes += [child for child, parent in parents.items() if parent == pid]
    return processes


def _read_stat(pid: int | str) -> list[str]:
    """The fields of a process after its name; zeros for one that has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["0"] * 20


def _format_size(size: int, costs: dict[str, dict[str, float]]) -> str:
    rows = [
        f"{size:3}x {engine:7} {cost['wall']:8.1f} s wall {cost['cpu']:8.1f} s CPU "
        f"{cost['gib']:6.2f} GiB {cost['rows']:12,.0f} rows"
        for engine, cost in costs.items()
    ]
    ratios = {name: costs["spark"][name] / costs["duckdb"][name] for name in ("wall", "cpu")}
    return "\n".join([*rows, f"{size:3}x Spark / DuckDB: {ratios['wall']:.1f} wall, {ratios['cpu']:.1f} CPU"])


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--warm", action="store_true", help="measure the second of two snapshots")
    parser.add_argument("--folder", default=None, help="where to put the records; needs 1 GB per size of 4")
    parser.add_argument("--child", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
