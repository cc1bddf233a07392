"""The engine: where the counting is done, quickly and always to the same last digit."""

import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend

from features.engine import expressions

EPOCH = datetime(1970, 1, 1).date()


#: What counting may hold in memory; the rest waits on disk. Bounded at 1.2 GB, the features of a night of the Complete
#: Journey peaked at 1.9 GiB instead of 3.9 and took a tenth longer; larger shops want a little more.
MEMORY_LIMIT = "2GB"


def connect() -> Backend:
    """A fresh DuckDB in memory, on UTC, with OMP_NUM_THREADS threads (all cores where that is not set).

    It holds REGULARS_ENGINE_MEMORY at most (MEMORY where that is not set).
    """
    threads = os.environ.get("OMP_NUM_THREADS", "")
    settings = {"threads": int(threads)} if threads.isdigit() and int(threads) > 0 else {}
    con = ibis.duckdb.connect(**settings)
    con.raw_sql("set timezone = 'UTC'")
    con.raw_sql(f"set memory_limit = '{os.environ.get('REGULARS_ENGINE_MEMORY', MEMORY_LIMIT)}'")
    con.raw_sql(f"set temp_directory = '{Path(tempfile.gettempdir()) / f'regulars-{os.getpid()}'}'")
    # Asked first: in a notebook without widgets DuckDB refuses to hear of its progress bar at all.
    if con.con.sql("select current_setting('enable_progress_bar')").fetchall() == [(True,)]:
        con.raw_sql("set enable_progress_bar = false")
    return con


class QueryPlan:
    """Steps of counting over named tables, written down in SQL once and then followed as often as needed.

    Turning expressions into SQL takes longer than counting one customer's lines does, and who follows the same
    recipe for everybody at night and for one sale at the till gets the same number to the last digit.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []
        self.outputs: dict[str, str] = {}

    def add_step(self, table: ir.Table) -> ir.Table:
        """Count this table once and keep it; the steps after it read what was kept."""
        name = f"step_{len(self.steps)}"
        self.steps.append((name, to_sql(table)))
        return ibis.table(table.schema(), name=name)

    def add_output(self, name: str, table: ir.Table) -> None:
        """What the recipe is for: a table that whoever follows it may ask for by name."""
        self.outputs[name] = to_sql(table)

    def run(self, con: Backend) -> None:
        """Count every step, over the named tables that lie in con."""
        for name, query in self.steps:
            con.con.execute(f"create temp table {name} as {query}")

    def prepare(self, con: Backend) -> None:
        """Have every statement ready, over named tables that lie in con and may still be empty; see `repeat`."""
        for name, query in self.steps:
            con.con.execute(f"create temp table {name} as {query}")
            con.con.execute(f"prepare make_{name} as insert into {name} {query}")
        for name, query in self.outputs.items():
            con.con.execute(f"prepare tell_{name} as {query}")

    def run_prepared(self, con: Backend) -> dict[str, pa.Table]:
        """Every answer, over what lies in the named tables by now: twice as fast as starting anew."""
        for name, _ in self.steps:
            con.con.execute(f"execute make_{name}")
        return {name: con.con.sql(f"execute tell_{name}").to_arrow_table() for name in self.outputs}


def to_sql(table: ir.Table) -> str:
    """A table's SQL, on one line."""
    return str(ibis.to_sql(table, dialect="duckdb", pretty=False))


def build_cutoffs(cutoffs: Sequence[datetime], timezone: str) -> pa.Table:
    """The moments to look back from: as_of (UTC), as_of_day (day number in the shop's zone)."""
    rows = {
        "as_of": [to_utc(cutoff) for cutoff in cutoffs],
        "as_of_day": [day_number(cutoff, timezone) for cutoff in cutoffs],
    }
    types = {"as_of": pa.timestamp("us", "UTC"), "as_of_day": pa.int64()}
    return pa.table({name: pa.array(rows[name], dtype) for name, dtype in types.items()})


def to_utc(instant: datetime) -> datetime:
    """The same instant in UTC; a time without a zone is refused rather than guessed."""
    if instant.tzinfo is None:
        raise ValueError(f"{instant} has no time zone; give an aware datetime, such as one of customers.clock")
    return instant.astimezone(UTC)


def day_number(instant: datetime, timezone: str) -> int:
    """The shop's day that a moment falls on, counted from 1970-01-01."""
    return (instant.astimezone(ZoneInfo(timezone)).date() - EPOCH).days


def is_start_of_day(instant: datetime, timezone: str) -> bool:
    """Whether a moment is the first instant of a day in the shop's zone, so that it cuts no day in two."""
    local = instant.astimezone(ZoneInfo(timezone))
    return local.fold == 0 and local == local.replace(hour=0, minute=0, second=0, microsecond=0)


def mid_day_cutoffs(cutoffs: Sequence[datetime], timezone: str) -> list[datetime]:
    """The moments that fall into the middle of a day in the shop's zone."""
    return [cutoff for cutoff in cutoffs if not is_start_of_day(cutoff, timezone)]


def write_parquet(con: Backend, query: str, path: Path) -> int:
    """Write a Parquet file beside its name, to be moved into place when all of a snapshot is ready; its rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    con.con.execute(
        f"copy ({query}) to '{quote_path(path)}' (format parquet, row_group_size {expressions.ROW_GROUP_SIZE})"
    )
    return int(pq.read_metadata(path).num_rows)


def quote_path(path: Path) -> str:
    """A path inside SQL's quotes."""
    return str(path).replace("'", "''")
