"""Real-time features of a few customers, equal to the last digit to those of a nightly snapshot."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path
from threading import Lock

import ibis
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend

from features.engine import duckdb, ledger_lines
from features.engine.query_plan import QueryPlan
from features.snapshots import point_in_time

PRODUCT_SCHEMA = pa.schema(
    [
        ("product_key", pa.int64()),
        ("department", pa.string()),
        ("category", pa.string()),
        ("brand", pa.string()),
        ("sensitive", pa.bool_()),
    ]
)
CONSENT_SCHEMA = pa.schema([("customer_key", pa.int64()), ("profiling_sensitive", pa.bool_())])

#: Input tables of the plan.
INPUT_TABLES = {
    "ledger": ledger_lines.LEDGER_SCHEMA,
    "customer_interactions": ledger_lines.INTERACTION_SCHEMA,
    "products": ledger_lines.PRODUCT_SCHEMA,
    "sensitive": ibis.schema({"product_key": "int64"}),
    "allowing": ledger_lines.CUSTOMER_KEY_SCHEMA,
    "latest": ibis.schema(point_in_time.CUTOFF_TABLES["latest"]),
}
KEY_COLUMNS = ["customer_key", "event_timestamp", "created"]
_lock = Lock()


def compute_features(
    sales: pa.Table, interactions: pa.Table, ledger: Path, *, as_of: datetime, timezone: str
) -> dict[str, pd.DataFrame]:
    """Features of a few customers as of a cutoff, by view: frames with the view's columns, one row per customer.

    sales: all versions of all lines of these customers, in the mirror's columns; interactions: all of theirs. Products
    and consents are read from the mirror's folder. Frames are ready for FeatureStore.push, and equal to the last digit
    to what snapshot.write_snapshot gives for the same customers and cutoff. A customer without a purchase before it has
    at most a row in engagement.
    """
    tables = {
        "ledger": sales.select(ledger_lines.LEDGER_SCHEMA.names),
        "customer_interactions": interactions.select(ledger_lines.INTERACTION_SCHEMA.names),
    }
    tables |= _mirror_tables(Path(ledger), sales) | {"latest": duckdb.build_cutoffs([as_of], timezone)}
    with _lock:
        con, query_plan = _prepared_engine(timezone)
        with _loaded_tables(con, tables):
            frames = {name: table.to_pandas() for name, table in query_plan.run_prepared(con).items()}
    numbers = frames.pop(point_in_time.ALL_NUMBERS)
    return {name: numbers[[*KEY_COLUMNS, *features]] for name, features in _features_by_family().items()} | frames


@cache
def _features_by_family() -> dict[str, list[str]]:
    return {name: [*family.columns(ledger_lines.VISIBLE_DAYS)] for name, family in point_in_time.FAMILIES.items()}


def prepare(timezone: str) -> None:
    """Compile the plan of this time zone, which takes seconds, before the first customer is refreshed."""
    with _lock:
        _prepared_engine(timezone)


@cache
def _prepared_engine(timezone: str) -> tuple[Backend, duckdb.CompiledPlan]:
    """A connection with every statement prepared and no rows in the input tables.

    A customer has few lines: more threads, or an optimised plan, cost more than they save (measured: a third).
    """
    con, query_plan = duckdb.connect(), duckdb.CompiledPlan(_query_plan(timezone))
    con.raw_sql("set threads = 1")
    con.raw_sql("pragma disable_optimizer")
    for name, schema in INPUT_TABLES.items():
        con.create_table(name, schema=schema)
    query_plan.prepare(con)
    return con, query_plan


def _query_plan(timezone: str) -> QueryPlan:
    """The plan of a single cutoff, after steps that select the lines and interactions known and permitted by then."""
    inputs = {name: ibis.table(schema, name=name) for name, schema in INPUT_TABLES.items()}
    cutoff = inputs["latest"].as_of.as_scalar()
    visible_lines = ledger_lines.drop_sensitive(
        ledger_lines.visible_versions(inputs["ledger"], cutoff), inputs["sensitive"], inputs["allowing"]
    )
    query_plan, family_plan = QueryPlan(), point_in_time.single_cutoff_plan(timezone)
    steps = {
        "sold": visible_lines,
        "interactions": ledger_lines.interactions_before(inputs["customer_interactions"], cutoff),
    }
    query_plan.steps = [*steps.items(), *family_plan.steps]
    query_plan.outputs = family_plan.outputs
    return query_plan


@contextmanager
def _loaded_tables(con: Backend, tables: dict[str, pa.Table]) -> Iterator[None]:
    """Fill the named tables, and remove the rows afterwards, so that no personal data stays."""
    con.con.execute("begin")
    try:
        for name, table in tables.items():
            con.con.from_arrow(table).insert_into(name)
        yield
    finally:
        con.con.execute("rollback")


def _mirror_tables(ledger: Path, sales: pa.Table) -> dict[str, pa.Table]:
    """Products and consents from the mirror, for the products and customers of `sales`."""
    products = _matching_rows(ledger / "products.parquet", PRODUCT_SCHEMA, sales)
    consents = _matching_rows(ledger / "consents.parquet", CONSENT_SCHEMA, sales)
    return {
        "products": products.select(ledger_lines.PRODUCT_SCHEMA.names),
        "sensitive": products.filter(products["sensitive"].fill_null(False)).select(["product_key"]),
        "allowing": consents.filter(consents["profiling_sensitive"].fill_null(False)).select(["customer_key"]),
    }


def _matching_rows(path: Path, schema: pa.Schema, sales: pa.Table) -> pa.Table:
    """Rows of a mirror table whose first column occurs in `sales`."""
    if not path.exists():
        return schema.empty_table()
    table, key = _read_cached(path, path.stat().st_mtime_ns, schema), schema.names[0]
    return table.filter(pc.is_in(table[key], pc.unique(sales[key])))


@lru_cache(maxsize=8)
def _read_cached(path: Path, _modified_ns: int, schema: pa.Schema) -> pa.Table:
    table = pq.read_table(path, columns=[name for name in schema.names if name in pq.read_schema(path).names])
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names).cast(schema)
