"""The Spark engine: the features of shops that have outgrown one machine, from the same expressions as DuckDB's.

Imported only where a shop's engine is spark. What it needs beyond the other engine: the extra `spark` and Java.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import sqlglot as sg
import sqlglot.expressions as sge

from customers.shop.errors import ShopUnavailable
from features.engine import expressions
from features.engine.query_plan import QueryPlan

try:
    from ibis.backends.pyspark import Backend as IbisSparkBackend
    from ibis.backends.sql.compilers.pyspark import PySparkCompiler
    from pyspark import StorageLevel
    from pyspark.sql import DataFrame, SparkSession
except ImportError:
    raise ShopUnavailable("engine = spark needs PySpark; run: pip install 'regulars[spark]'") from None

Shared = TypeVar("Shared")
Portion = TypeVar("Portion")
Result = TypeVar("Result")

#: Memory of the Java process. Spark spills to disk what does not fit.
MEMORY_LIMIT = "4GB"
#: Lines for each partition of a plan's steps: a task then needs about a tenth of MEMORY_LIMIT.
LINES_PER_PARTITION = 400_000
MIN_PARTITIONS = 4
#: How often a task of a local session is tried. On a cluster, Spark itself tries four times.
TASK_TRIES = 4

#: Written once, with the precision of the ledger; Spark's own default is nanoseconds in a deprecated format.
_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "FATAL",
}
_LOCAL_SETTINGS = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}


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
        obj: ir.Table | pa.Table | None = None,
        *,
        schema: Any = None,
        temp: bool | None = None,
        overwrite: bool = True,
    ) -> ir.Table:
        """A temporary table of an expression, which is computed once, or of Arrow rows, or without rows."""
        if isinstance(obj, ir.Table):
            frame = self.session.sql(self.compile(obj)).persist(StorageLevel.DISK_ONLY)
            self.persisted.append(frame)
        else:
            frame = self.session.createDataFrame(schema.to_pyarrow().empty_table() if obj is None else obj)
        return self._name_frame(frame, name)

    def create_step(self, name: str, table: ir.Table, *, is_shared: bool) -> None:
        """Let `name` stand for the rows of `table`; they are stored where several others read them."""
        if is_shared:
            self.create_table(name, table)
        else:
            self.session.sql(self.compile(table)).createOrReplaceTempView(name)

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
    REGULARS_ENGINE_MEMORY, the memory of the Java process (MEMORY_LIMIT where that is not set). Raises ShopUnavailable
    without Java.
    """
    _require_java()
    SparkBackend.register_options()
    backend = SparkBackend()
    backend.do_connect(_session().newSession())
    return backend


def write_outputs(con: SparkBackend, plan: QueryPlan, folder: Path) -> dict[str, Path]:
    """Run a plan over the named tables in `con`; one file of every output, in `folder`, by its name."""
    # Spark's own 200 partitions take minutes of a small shop, and are too few for a very large one.
    partitions = max(MIN_PARTITIONS, con.session.table("sold").count() // LINES_PER_PARTITION)
    con.session.conf.set("spark.sql.shuffle.partitions", partitions)
    readers = Counter(name for table in _tables(plan) for name in _names_read(table))
    for name, table in plan.steps:
        con.create_step(name, table, is_shared=readers[name] > 1)
    return {name: _write_sorted(con, table, folder / f"{name}.parquet") for name, table in plan.outputs.items()}


def _write_sorted(con: SparkBackend, table: ir.Table, out: Path) -> Path:
    """One Parquet file of a sorted table, with row groups that a reader of one cutoff can skip; returns `out`.

    Spark's tasks write a part each, which is there once the task has succeeded; this process merges them.
    """
    parts = out.with_suffix(".parts")
    con.session.sql(con.compile(table)).write.parquet(to_url(str(parts)))
    dataset = ds.dataset(sorted(parts.glob("part-*.parquet")))
    schema = pa.schema([(field.name, _nullable(field.type)) for field in dataset.schema])
    with pq.ParquetWriter(out, schema) as writer:
        for batch in dataset.to_batches(batch_size=expressions.ROW_GROUP_SIZE):
            writer.write_table(pa.Table.from_batches([batch]).cast(schema), row_group_size=expressions.ROW_GROUP_SIZE)
    shutil.rmtree(parts)
    return out


def _nullable(dtype: pa.DataType) -> pa.DataType:
    """The type as DuckDB writes it: Spark states for lists too that no element is null."""
    return pa.list_(dtype.value_type) if pa.types.is_list(dtype) else dtype


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


def _tables(plan: QueryPlan) -> list[ir.Table]:
    return [*(table for _, table in plan.steps), *plan.outputs.values()]


def _names_read(table: ir.Table) -> list[str]:
    return [node.name for node in table.op().find(ops.UnboundTable)]


def _session() -> SparkSession:
    threads = os.environ.get("OMP_NUM_THREADS") or "*"
    master = os.environ.get("REGULARS_SPARK_MASTER") or f"local[{threads},{TASK_TRIES}]"
    memory = os.environ.get("REGULARS_ENGINE_MEMORY") or MEMORY_LIMIT
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
