"""The Spark engine: the records of shops that have outgrown one machine, brought together by customer for DuckDB.

Features of customers are computed by DuckDB in Spark's tasks (`exchange_rows`); labels and co-purchases in Spark's SQL.

Imported only where a shop's engine is spark. What it needs beyond the other engine: the extra `spark` and Java.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import sqlglot as sg
import sqlglot.expressions as sge
from numpy.typing import NDArray

from customers.shop.errors import ShopUnavailable

try:
    from ibis.backends.pyspark import Backend as IbisSparkBackend
    from ibis.backends.sql.compilers.pyspark import PySparkCompiler
    from pyspark import StorageLevel, TaskContext
    from pyspark.sql import Column, DataFrame, SparkSession, functions
except ImportError:
    raise ShopUnavailable("engine = spark needs PySpark; run: pip install 'regulars[spark]'") from None

Shared = TypeVar("Shared")
Portion = TypeVar("Portion")
Result = TypeVar("Result")

#: Memory of the Java process. Spark spills to disk what does not fit.
MEMORY_LIMIT = "4GB"
#: How often a task of a local session is tried. On a cluster, Spark itself tries four times.
TASK_TRIES = 4

_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "FATAL",
}
_LOCAL_SETTINGS = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.shuffle.partitions": "32",  # Spark's own 200 are for many machines
}


class SparkCompiler(PySparkCompiler):
    """Ibis's compiler for Spark SQL, with ordered lists and fractions as doubles."""

    __slots__ = ()
    #: Ibis would sort distinct rows in a query around theirs, and makes them distinct by the columns of their filter
    #: too. Spark needs no such query where the keys of the order are among the columns.
    post_rewrites = ()

    def visit_NonNullLiteral(self, op: Any, *, value: Any, dtype: Any) -> Any:  # noqa: N802
        """A literal; one with a fraction is a double, where Spark SQL would read it as an exact decimal."""
        if dtype.is_floating() and math.isfinite(value):
            return self.cast(sge.convert(value), dtype)
        return super().visit_NonNullLiteral(op, value=value, dtype=dtype)

    def visit_ArrayCollect(  # noqa: N802
        self, op: Any, *, arg: Any, where: Any, order_by: Any, include_null: bool, distinct: bool
    ) -> Any:
        """An ordered list of values: Spark SQL sorts lists, so each value is collected behind its sort keys."""
        if not order_by:
            return super().visit_ArrayCollect(
                op, arg=arg, where=where, order_by=order_by, include_null=include_null, distinct=distinct
            )
        assert where is None
        assert not distinct
        assert not any(key.args.get("desc") for key in order_by), "the keys of a sorted list are ascending"
        fields = [*(key.this for key in order_by), arg]
        row = self.f.anon.named_struct(
            *(part for at, each in enumerate(fields) for part in (sge.convert(f"_{at}"), each))
        )
        name = sg.to_identifier("_row")
        value = sge.Lambda(
            this=sge.Dot(this=name, expression=sg.to_identifier(f"_{len(order_by)}")), expressions=[name]
        )
        return self.f.anon.transform(self.f.anon.sort_array(self.f.anon.collect_list(row)), value)


class SparkBackend(IbisSparkBackend):
    """A session of Spark for expressions of Ibis, with temporary tables; see `connect`."""

    name = "pyspark"
    compiler = SparkCompiler()

    def do_connect(self, session: SparkSession) -> None:
        """Take over a session, and give it the functions that expressions use by DuckDB's names."""
        super().do_connect(session)
        self.session = session
        self.persisted: list[DataFrame] = []
        self.raw_sql(
            "create temporary function timezone(zone string, instant timestamp) returns timestamp "
            "return from_utc_timestamp(instant, zone)"
        )

    def read_parquet(self, path: str | Sequence[str], /, *, table_name: str | None = None, **_kwargs: Any) -> ir.Table:
        """A table of one Parquet file or folder, or of several; local paths or URLs."""
        paths = [path] if isinstance(path, str) else path
        return self._name_frame(self.session.read.parquet(*map(to_url, paths)), table_name)

    def create_table(
        self,
        name: str,
        /,
        obj: ir.Table | None = None,
        *,
        schema: Any = None,
        temp: bool | None = None,
        overwrite: bool = True,
    ) -> ir.Table:
        """A temporary table of an expression, which is computed once, or without rows."""
        if obj is None:
            return self._name_frame(self.session.createDataFrame(schema.to_pyarrow().empty_table()), name)
        frame = self.session.sql(self.compile(obj)).persist(StorageLevel.DISK_ONLY)
        self.persisted.append(frame)
        return self._name_frame(frame, name)

    def _name_frame(self, frame: DataFrame, name: str | None) -> ir.Table:
        name = name or ibis.util.gen_name("frame")
        frame.createOrReplaceTempView(name)
        return self.table(name)

    def disconnect(self) -> None:
        """Free what was stored; the process keeps its Spark, which takes seconds to start."""
        for frame in self.persisted:
            frame.unpersist()
        self.persisted.clear()


def connect() -> SparkBackend:
    """Open a session of its own, in UTC, in this process's Spark, which is started by the first call.

    Environment: REGULARS_SPARK_MASTER (default: this machine, with OMP_NUM_THREADS threads or all cores) and
    REGULARS_SPARK_MEMORY, that of the Java process (MEMORY_LIMIT where that is not set). Raises ShopUnavailable
    without Java.
    """
    _require_java()
    SparkBackend.register_options()
    backend = SparkBackend()
    backend.do_connect(_session().newSession())
    return backend


def count_rows(con: SparkBackend, tables: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The customer keys of all these tables together, ascending, and how many rows each customer has: both (n,)."""
    keys = reduce(DataFrame.unionAll, (con.session.table(table).select("customer_key") for table in tables))
    counts = keys.groupBy("customer_key").count().toArrow().sort_by("customer_key")
    return counts["customer_key"].to_numpy(), counts["count"].to_numpy()


def exchange_rows(
    con: SparkBackend,
    tables: Sequence[str],
    last_keys: Sequence[int],
    write: Callable[[Shared, int, dict[str, pa.Table]], None],
    shared: Shared,
) -> None:
    """Bring the rows of each portion of customers together, and let a task call write(shared, number, rows by table).

    Portion n has the customers up to last_keys[n], ascending, that are in no portion before it. Each row travels once;
    a task that fails is tried again, so that `write` must be safe to repeat. `shared` is sent to each machine once.
    """
    schemas = {table: con.session.table(table).limit(0).toArrow().schema for table in tables}
    broadcast = con.session.sparkContext.broadcast(shared)

    def write_portion(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        task = TaskContext.get()
        assert task is not None, "this function runs in a task of Spark only"
        number = task.partitionId()
        write(broadcast.value, number, _split_rows(batches, schemas))
        yield pa.RecordBatch.from_pydict({"portion": [number]})

    try:
        portions = _tagged_rows(con, tables).repartitionById(len(last_keys), _portion_number(last_keys))
        written = {row.portion for row in portions.mapInArrow(write_portion, "portion bigint").collect()}
    finally:
        broadcast.destroy()
    for number in set(range(len(last_keys))) - written:  # Spark needs no task where it sees that there is no row
        write(shared, number, _split_rows(iter(()), schemas))


def _tagged_rows(con: SparkBackend, tables: Sequence[str]) -> DataFrame:
    """The rows of all tables in one: a column for each table with the whole row, null in the rows of the others."""
    frames = {table: con.session.table(table) for table in tables}
    tagged = [
        frame.select(
            "customer_key",
            *(
                functions.struct("*").alias(name)
                if name == table
                else functions.lit(None).cast(other.schema).alias(name)
                for name, other in frames.items()
            ),
        )
        for table, frame in frames.items()
    ]
    return reduce(DataFrame.unionAll, tagged)


def _portion_number(last_keys: Sequence[int]) -> Column:
    """The number of the portion of a customer, by binary search: an expression of column customer_key."""

    def search(first: int, last: int) -> Column:
        if first == last:
            return functions.lit(first)
        middle = (first + last) // 2
        is_before = functions.col("customer_key") <= functions.lit(int(last_keys[middle]))
        return functions.when(is_before, search(first, middle)).otherwise(search(middle + 1, last))

    return search(0, len(last_keys) - 1)


def _split_rows(batches: Iterator[pa.RecordBatch], schemas: Mapping[str, pa.Schema]) -> dict[str, pa.Table]:
    """The rows of each table, with the columns of its schema, from the batches of `_tagged_rows`."""
    parts: dict[str, list[pa.RecordBatch]] = {table: [] for table in schemas}
    for batch in batches:
        for table in schemas:
            rows = batch.column(table).drop_null()
            if len(rows):
                parts[table].append(pa.RecordBatch.from_struct_array(rows))
    return {
        table: pa.Table.from_batches(parts[table]).cast(schemas[table])
        if parts[table]
        else schemas[table].empty_table()
        for table in schemas
    }


def map_portions(
    function: Callable[[Shared, Portion], Result], shared: Shared, portions: Sequence[Portion]
) -> Iterator[Result]:
    """The results of function(shared, portion), in the order of `portions`; each is computed by a task of Spark.

    `shared` is sent to each machine once. Results wait on disk until they are taken, one after another; a task that
    fails is tried again.
    """
    if not portions:
        return
    context = _session().sparkContext
    broadcast = context.broadcast(shared)
    results = context.parallelize(list(portions), len(portions)).map(lambda portion: function(broadcast.value, portion))
    results.persist(StorageLevel.DISK_ONLY)
    try:
        results.count()
        yield from results.toLocalIterator()
    finally:
        results.unpersist()
        broadcast.destroy()


def to_url(path: str) -> str:
    """A path as a URL, since Spark would look for a path without scheme in the file system of its cluster."""
    return path if "://" in path else f"file://{Path(path).absolute()}"


def _session() -> SparkSession:
    threads = os.environ.get("OMP_NUM_THREADS") or "*"
    master = os.environ.get("REGULARS_SPARK_MASTER") or f"local[{threads},{TASK_TRIES}]"
    memory = os.environ.get("REGULARS_SPARK_MEMORY") or MEMORY_LIMIT
    settings = _SETTINGS | {"spark.driver.memory": memory.lower().removesuffix("b").replace(" ", "")}
    if master.startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        settings |= _LOCAL_SETTINGS | {"spark.local.dir": tempfile.gettempdir()}
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.appName("regulars").master(master)
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def _require_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if not (shutil.which("java") or (home and Path(home, "bin", "java").exists())):
        raise ShopUnavailable(
            "engine = spark needs Java 17; run: apt-get install openjdk-17-jre-headless, or set JAVA_HOME"
        )
