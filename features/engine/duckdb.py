"""The DuckDB engine: connections, compiled plans and Parquet output, with results equal to the last digit."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.operations as operations
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.duckdb import Backend

from customers.loading import disk_space
from features.engine import expressions
from features.engine.query_plan import QueryPlan

EPOCH = datetime(1970, 1, 1).date()


#: DuckDB's memory limit; what does not fit is spilled to disk. With 1.2 GB, the features of one nightly run on Complete
#: Journey peaked at 1.9 GiB instead of 3.9 GiB and took a tenth longer; larger shops want a little more.
MEMORY_LIMIT = "2GB"


def connect(*, threads: int | None = None, memory_limit: str | None = None) -> Backend:
    """Open a new in-memory DuckDB in UTC, by default with OMP_NUM_THREADS threads (all cores where that is not set).

    memory_limit: by default that of `read_memory_limit`.
    """
    threads = threads or _read_threads()
    con = ibis.duckdb.connect(**({"threads": threads} if threads else {}))
    con.raw_sql("set timezone = 'UTC'")
    con.raw_sql(f"set memory_limit = '{memory_limit or read_memory_limit()}'")
    con.raw_sql(f"set temp_directory = '{quote_path(_spill_folder())}'")
    # Checked first: in a notebook without widgets, DuckDB rejects every setting of its progress bar.
    if con.con.sql("select current_setting('enable_progress_bar')").fetchall() == [(True,)]:
        con.raw_sql("set enable_progress_bar = false")
    return con


def read_memory_limit() -> str:
    """The memory limit of this process's environment: REGULARS_ENGINE_MEMORY, MEMORY_LIMIT where that is not set."""
    return os.environ.get("REGULARS_ENGINE_MEMORY", MEMORY_LIMIT)


def _read_threads() -> int | None:
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return int(threads) if threads.isdigit() and int(threads) > 0 else None


@cache
def _spill_folder() -> Path:
    """Where this process puts what does not fit into memory: only its user may read it, and it goes with the process.

    Not in the home, which may lie on a slow or small disk: TMPDIR says where.
    """
    folder = disk_space.make_process_folder(Path(tempfile.gettempdir()), "regulars-spill-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class CompiledPlan:
    """A query plan in DuckDB's SQL, compiled once and run as often as needed; see `compile_plan`.

    Compiling takes longer than aggregating one customer's lines. The same plan gives the same numbers, to the last
    digit, for all customers at night and for one customer in real time.
    """

    def __init__(self, plan: QueryPlan) -> None:
        self.steps = [(name, to_sql(table)) for name, table in plan.steps]
        self.outputs = {name: to_sql(table) for name, table in plan.outputs.items()}
        self._inputs = {name: _input_names(table) for name, table in [*plan.steps, *plan.outputs.items()]}

    def run(self, con: Backend) -> None:
        """Create the table of every step in `con`, which holds the named input tables."""
        for name, query in self.steps:
            con.con.execute(f"create temp table {name} as {query}")

    def drop_steps(self, con: Backend) -> None:
        """Drop the tables that `run` created."""
        for name, _ in self.steps:
            con.con.execute(f"drop table if exists {name}")

    def prepare(self, con: Backend) -> None:
        """Prepare a query for each output, over input tables that exist in `con` and may still be empty.

        The steps are part of the query: a prepared INSERT is planned again at each execution, which takes longer than
        computing one customer's features.
        """
        for name, query in self.outputs.items():
            con.con.execute(f"prepare output_{name} as {self._with_steps(name, query)}")

    def run_prepared(self, con: Backend) -> dict[str, pa.Table]:
        """Run the prepared plan over the current rows of the input tables; returns the outputs by name.

        Each output is a table with the columns of its expression.
        """
        return {name: con.con.sql(f"execute output_{name}").to_arrow_table() for name in self.outputs}

    def _with_steps(self, output: str, query: str) -> str:
        """The query of an output as one statement, with the steps that it reads."""
        steps = dict(self.steps)
        names = [name for name in steps if name in self._steps_before(output)]
        if not names:
            return query
        return f"with {', '.join(f'{name} as materialized ({steps[name]})' for name in names)} select * from ({query})"

    def _steps_before(self, name: str) -> set[str]:
        """The steps that a step or an output reads, and those that these read."""
        direct = self._inputs[name] & {step for step, _ in self.steps}
        return direct.union(*map(self._steps_before, direct))


@cache
def compile_plan(plan: QueryPlan) -> CompiledPlan:
    """The plan in DuckDB's SQL, compiled at the first call."""
    return CompiledPlan(plan)


def _input_names(table: ir.Table) -> set[str]:
    return {node.name for node in table.op().find(operations.UnboundTable)}


def to_sql(table: ir.Table) -> str:
    """The DuckDB SQL of an expression, on one line."""
    return str(ibis.to_sql(table, dialect="duckdb", pretty=False))


def build_cutoffs(cutoffs: Sequence[datetime], timezone: str) -> pa.Table:
    """Table with one row per cutoff: columns as_of and as_of_day.

    as_of is a timestamp in UTC, as_of_day (int64) the day number in the shop's zone.
    """
    rows = {
        "as_of": [to_utc(cutoff) for cutoff in cutoffs],
        "as_of_day": [day_number(cutoff, timezone) for cutoff in cutoffs],
    }
    types = {"as_of": pa.timestamp("us", "UTC"), "as_of_day": pa.int64()}
    return pa.table({name: pa.array(rows[name], dtype) for name, dtype in types.items()})


def to_utc(instant: datetime) -> datetime:
    """The same instant in UTC. Raises ValueError for a datetime without a time zone."""
    if instant.tzinfo is None:
        raise ValueError(f"{instant} has no time zone; give an aware datetime, such as one of customers.clock")
    return instant.astimezone(UTC)


def day_number(instant: datetime, timezone: str) -> int:
    """The local day of an instant, as days since 1970-01-01."""
    return (instant.astimezone(ZoneInfo(timezone)).date() - EPOCH).days


def is_start_of_day(instant: datetime, timezone: str) -> bool:
    """Whether an instant is the first of a local day, so that it splits no day in two."""
    local = instant.astimezone(ZoneInfo(timezone))
    return local.fold == 0 and local == local.replace(hour=0, minute=0, second=0, microsecond=0)


def mid_day_cutoffs(cutoffs: Sequence[datetime], timezone: str) -> list[datetime]:
    """The cutoffs that fall inside a local day, not at its start."""
    return [cutoff for cutoff in cutoffs if not is_start_of_day(cutoff, timezone)]


def write_parquet(con: Backend, query: str, path: Path) -> Path:
    """Write a query's result to a Parquet file and return its path.

    The path is a temporary one: the caller renames the file once all files of a snapshot are written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    con.con.execute(
        f"copy ({query}) to '{quote_path(path)}' (format parquet, row_group_size {expressions.ROW_GROUP_SIZE})"
    )
    return path


def write_outputs(con: Backend, compiled: CompiledPlan, folder: Path) -> dict[str, Path]:
    """Run a plan over the named tables in `con`; one file of every output, in `folder`, by its name."""
    compiled.run(con)
    return {name: write_parquet(con, query, folder / f"{name}.parquet") for name, query in compiled.outputs.items()}


def quote_path(path: Path) -> str:
    """Escape a path for single quotes in SQL."""
    return str(path).replace("'", "''")
