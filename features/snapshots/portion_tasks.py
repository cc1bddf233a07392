"""Portions of customers by tasks of Spark: Spark brings each customer's rows together, and DuckDB computes them.

Each task computes what `features.snapshots.portions` computes in one process, from the same compiled plan, and writes
the outputs of its portion into a folder that all machines share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from features.engine import duckdb, ledger_lines, spark
from features.engine.spark import SparkBackend
from features.snapshots import point_in_time, portions
from features.snapshots.point_in_time import PRICE_SUMS
from features.snapshots.portions import CustomerGroup

#: Lines and interactions of a task: it then takes about 1 GB beside Spark's own memory, and there are enough tasks.
MAX_ROWS = 400_000


@dataclass(frozen=True)
class _Inputs:
    """What all tasks share: the plans in SQL, the tables besides the customers' rows, and where the outputs go."""

    family_plan: duckdb.CompiledPlan
    price_plan: duckdb.CompiledPlan
    groups: Sequence[CustomerGroup]
    tables: dict[str, pa.Table]
    folder: Path
    memory_limit: str


def write_outputs(
    con: SparkBackend,
    ledger: Path,
    as_of: datetime,
    timezone: str,
    folder: Path,
    groups: Sequence[CustomerGroup],
    tables: dict[str, pa.Table],
) -> dict[str, Path]:
    """Compute prices and every family; one file of every output, in `folder`, by its name.

    tables: training_customers and price_cutoffs, by name.
    """
    ledger_lines.create_record_views(con, ledger, as_of)
    ranges = portions.split_keys(*spark.count_rows(con, portions.TABLES), MAX_ROWS)
    last_keys = [last for _, last in ranges] or [0]  # a shop without rows has one portion without rows
    inputs = _Inputs(
        family_plan=duckdb.compile_plan(point_in_time.batch_plan(timezone)),
        price_plan=duckdb.compile_plan(point_in_time.price_sums_plan()),
        groups=groups,
        tables=tables | {"products": _read_products(ledger)},
        folder=folder,
        memory_limit=duckdb.read_memory_limit(),
    )
    spark.exchange_rows(con, portions.TABLES, last_keys, _write_portion, inputs)
    families = portions.merge_outputs(inputs.family_plan.outputs, folder, len(last_keys))
    return families | _sum_prices(folder, len(last_keys), tables["price_cutoffs"])


def _read_products(ledger: Path) -> pa.Table:
    """The mirror's products: columns of ledger_lines.PRODUCT_SCHEMA."""
    con = duckdb.connect()
    try:
        return con.to_pyarrow(ledger_lines.read_products(ledger, con))
    finally:
        con.disconnect()


def _write_portion(inputs: _Inputs, number: int, rows: dict[str, pa.Table]) -> None:
    """Compute one portion with one thread; files are moved into place when complete, so that it may be repeated."""
    con = duckdb.connect(threads=1, memory_limit=inputs.memory_limit)
    try:
        for name, table in rows.items():
            con.con.register(f"portion_{name}", table)
        for name, table in inputs.tables.items():
            con.con.register(name, table)
        with TemporaryDirectory(dir=inputs.folder, prefix=f"attempt-{number}-") as attempt:
            con.con.execute("create view sold as from portion_sold")
            written = duckdb.write_outputs(con, inputs.price_plan, Path(attempt))
            written |= portions.write_portion(con, inputs.family_plan, inputs.groups, Path(attempt), number)
            for name, path in written.items():
                path.replace(portions.output_path(inputs.folder, name, number))
    finally:
        con.disconnect()


def _sum_prices(folder: Path, count: int, price_cutoffs: pa.Table) -> dict[str, Path]:
    """The prices, from what the customers of each portion add to them."""
    con = duckdb.connect()
    try:
        con.con.register("price_cutoffs", price_cutoffs)
        paths = [str(portions.output_path(folder, PRICE_SUMS, number)) for number in range(count)]
        con.con.read_parquet(paths, hive_partitioning=False).create_view(PRICE_SUMS)
        return duckdb.write_outputs(con, duckdb.compile_plan(point_in_time.summed_price_plan()), folder)
    finally:
        con.disconnect()
