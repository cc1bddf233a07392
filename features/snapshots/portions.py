"""Portions of customers: the lines of a shop cut into parts that each fit in memory, so that a run grows in proportion.

Every feature of a customer depends on that customer's lines alone. A run therefore computes one portion after another:
what it holds at once is bounded by the size of a portion, not by that of the shop.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend
from numpy.typing import NDArray

from features.engine import duckdb, expressions
from features.engine.query_plan import QueryPlan

#: Lines and interactions of a portion; the steps of one portion at twenty cutoffs then take about 1.5 GB.
MAX_ROWS = 800_000
#: Tables that are cut into portions, by column customer_key.
TABLES = ("sold", "interactions")


@dataclass(frozen=True)
class CustomerGroup:
    """Customers with the same cutoffs: those whose customer_key meets a condition in SQL, and their cutoff tables.

    `cutoff_tables` has the tables of point_in_time.CUTOFF_TABLES by name.
    """

    cutoff_tables: dict[str, pa.Table]
    condition: str = "true"


def write_outputs(con: Backend, plan: QueryPlan, folder: Path, groups: Sequence[CustomerGroup]) -> dict[str, Path]:
    """Run the plan over one portion of customers after another; one file of every output, in `folder`, by its name.

    `con` holds TABLES, products and training_customers. Each customer belongs to one of `groups`.
    """
    compiled, ranges = duckdb.compile_plan(plan), split_customers(con, MAX_ROWS)
    for table in TABLES:
        con.con.execute(f"alter view {table} rename to whole_{table}")
    if len(ranges) > 1:
        write_portions(con, ranges, folder)
    count = max(1, len(ranges))
    for number in range(count):
        open_portion(con, folder, number if len(ranges) > 1 else None)
        write_portion(con, compiled, groups, folder, number)
    return merge_outputs(compiled.outputs, folder, count)


def write_portion(
    con: Backend, compiled: duckdb.CompiledPlan, groups: Sequence[CustomerGroup], folder: Path, number: int
) -> dict[str, Path]:
    """Run the plan over the rows of the open portion, of each group by itself; one sorted file of every output."""
    parts: dict[str, list[Path]] = {name: [] for name in compiled.outputs}
    for place, group in enumerate(groups):
        if place and not _has_rows(con, group):
            continue
        for table in TABLES:
            con.con.execute(f"create or replace view {table} as from portion_{table} where {group.condition}")
        for name, rows in group.cutoff_tables.items():
            con.con.register(name, rows)
        compiled.run(con)
        for name, query in compiled.outputs.items():
            parts[name].append(duckdb.write_parquet(con, query, folder / f"{name}.{number}.{place}.parquet"))
        compiled.drop_steps(con)
    return {name: _merge_groups(con, paths, output_path(folder, name, number)) for name, paths in parts.items()}


def output_path(folder: Path, name: str, number: int) -> Path:
    """Where `write_portion` writes an output of a portion."""
    return folder / f"{name}.{number}.parquet"


def _has_rows(con: Backend, group: CustomerGroup) -> bool:
    """Whether the open portion has a row of a group."""
    queries = [f"select 1 from portion_{table} where {group.condition}" for table in TABLES]
    return bool(con.con.sql(f"{' union all '.join(queries)} limit 1").fetchall())


def _merge_groups(con: Backend, parts: Sequence[Path], out: Path) -> Path:
    """Merge the rows of one portion's groups into one sorted file; returns `out`. The parts are removed."""
    if len(parts) == 1:
        return parts[0].replace(out)
    keys = [name for name in pq.read_schema(parts[0]).names if name in ("customer_key", "product_key")]
    files = ", ".join(f"'{duckdb.quote_path(path)}'" for path in parts)
    duckdb.write_parquet(con, f"from read_parquet([{files}]) order by event_timestamp, {', '.join(keys)}", out)
    for path in parts:
        path.unlink()
    return out


def split_customers(con: Backend, max_rows: int) -> list[tuple[int, int]]:
    """Ranges of customer keys, first and last, with at most max_rows rows of TABLES each; a customer is never split.

    `con` holds TABLES. Ranges are ascending and leave no customer out; one with more rows is a range of their own.
    """
    counts = " union all ".join(f"select customer_key from {table}" for table in TABLES)
    rows = con.con.sql(
        f"select customer_key, count(*) from ({counts}) group by customer_key order by customer_key"
    ).fetchnumpy()
    keys, sizes = (np.asarray(column, np.int64) for column in rows.values())
    return split_keys(keys, sizes, max_rows)


def split_keys(keys: NDArray[np.int64], sizes: NDArray[np.int64], max_rows: int) -> list[tuple[int, int]]:
    """Ranges of ascending customer keys (n,), first and last, with at most max_rows of their `sizes` (n,) each."""
    return [(int(keys[start]), int(keys[end - 1])) for start, end in _bounds(sizes, max_rows)]


def _bounds(sizes: np.ndarray, max_rows: int) -> Iterator[tuple[int, int]]:
    """Start and end of consecutive runs of at most max_rows in sum."""
    totals = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = totals[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(totals, before + max_rows, side="right")))
        yield start, end
        start = end


def write_portions(con: Backend, ranges: Sequence[tuple[int, int]], folder: Path) -> None:
    """Write each whole_TABLE to folder/TABLE/portion=N/*.parquet in one pass; N is the place of a range in `ranges`."""
    bounds = pd.DataFrame(ranges, columns=["first_key", "last_key"]).rename_axis("portion").reset_index()
    con.con.register("portion_bounds", pa.Table.from_pandas(bounds, preserve_index=False))
    keys = " union ".join(f"select customer_key from whole_{table}" for table in TABLES)
    con.con.execute(
        f"create or replace temp table customer_portions as select customer_key, portion "
        f"from ({keys}) join portion_bounds on customer_key between first_key and last_key"
    )
    for table in TABLES:
        path = folder / table
        path.mkdir()
        con.con.execute(
            f"copy (select lines.*, portion from whole_{table} as lines join customer_portions using (customer_key)) "
            f"to '{duckdb.quote_path(path)}' (format parquet, partition_by (portion))"
        )


def open_portion(con: Backend, folder: Path, number: int | None) -> None:
    """Let portion_TABLE stand for the rows of one portion that `write_portions` wrote, or of all customers for None."""
    for table in TABLES:
        source = f"from whole_{table}"
        if number is not None:
            files = folder / table / f"portion={number}"
            # A portion without rows of a table has no file.
            source = (
                f"from read_parquet('{duckdb.quote_path(files)}/*.parquet', hive_partitioning = false)"
                if files.exists()
                else f"from whole_{table} where false"
            )
        con.con.execute(f"create or replace view portion_{table} as {source}")


def merge_outputs(names: Iterable[str], folder: Path, count: int) -> dict[str, Path]:
    """Merge the outputs of `count` portions, folder/NAME.N.parquet, into one sorted file each, by name."""
    return {
        name: merge_portions([output_path(folder, name, number) for number in range(count)], folder / f"{name}.parquet")
        for name in names
    }


def merge_portions(parts: Sequence[Path], out: Path) -> Path:
    """Merge the outputs of all portions, each sorted by event_timestamp and key, into one sorted file; returns `out`.

    Portions are ascending in their keys, so each moment is the portions' rows of it, one after another: the merge holds
    one moment of one portion. A reader of one moment finds it in row groups of its own. The parts are removed.
    """
    if len(parts) == 1:
        return parts[0].replace(out)
    # DuckDB declares a column of one portion as never null where it has no null there.
    schema = pa.schema([field.with_nullable(True) for field in pq.read_schema(parts[0])])
    moments = pa.chunked_array([pq.read_table(path, columns=["event_timestamp"])[0].unique() for path in parts])
    readers = [_MomentReader(path, schema) for path in parts]
    with pq.ParquetWriter(out, schema) as writer:
        for moment in moments.unique().sort():
            for reader in readers:
                table = reader.read_moment(moment)
                if len(table):
                    writer.write_table(table, row_group_size=expressions.ROW_GROUP_SIZE)
    for path in parts:
        path.unlink()
    return out


class _MomentReader:
    """Reads a file that is sorted by event_timestamp, one moment after another, and each row group once.

    A filter by moment would read the row groups that hold several moments again for each of them.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self._file = pq.ParquetFile(path)
        self._groups = iter(range(self._file.num_row_groups))
        self._pending = schema.empty_table()

    def read_moment(self, moment: pa.Scalar) -> pa.Table:
        """The rows of this moment, with the columns of the schema; moments must be asked for in ascending order."""
        parts = []
        while len(self._pending) or self._read_group():
            count = pc.sum(pc.equal(self._pending["event_timestamp"], moment)).as_py()
            parts.append(self._pending.slice(0, count))
            self._pending = self._pending.slice(count)
            if len(self._pending):
                break
        return pa.concat_tables([self.schema.empty_table(), *parts])

    def _read_group(self) -> bool:
        """Read the next row group; whether there was one."""
        group = next(self._groups, None)
        if group is None:
            return False
        self._pending = self._file.read_row_group(group).cast(self.schema)
        return True
