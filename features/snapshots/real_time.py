"""Live: a customer's numbers while they stand at the till, by the recipe that the night follows for everybody."""

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

#: What a customer's numbers are made of.
INPUT_TABLES = {
    "ledger": ledger_lines.LEDGER_SCHEMA,
    "said": ledger_lines.INTERACTION_SCHEMA,
    "products": ledger_lines.PRODUCT_SCHEMA,
    "sensitive": ibis.schema({"product_key": "int64"}),
    "allowing": ledger_lines.CUSTOMER_KEY_SCHEMA,
    "latest": ibis.schema(point_in_time.CUTOFF_TABLES["latest"]),
}
_lock = Lock()


def compute_features(
    sales: pa.Table, interactions: pa.Table, ledger: Path, *, as_of: datetime, timezone: str
) -> dict[str, pd.DataFrame]:
    """Every view's row of a few customers as of a moment: view -> frame, ready for `store.push`.

    sales are all versions of all lines of these customers in the mirror's columns, and interactions all of
    theirs; products and consents are read from the mirror's folder. To the last digit what `snapshot.write`
    gives the same customers at that moment. Who bought nothing before it has a row in engagement at most.
    """
    tables = {
        "ledger": sales.select(ledger_lines.LEDGER_SCHEMA.names),
        "said": interactions.select(ledger_lines.INTERACTION_SCHEMA.names),
    }
    tables |= _mirror_tables(Path(ledger), sales) | {"latest": duckdb.build_cutoffs([as_of], timezone)}
    with _lock:
        con, query_plan = _prepared_engine(timezone)
        with _loaded_tables(con, tables):
            return {name: table.to_pandas() for name, table in query_plan.run_prepared(con).items()}


@cache
def _prepared_engine(timezone: str) -> tuple[Backend, duckdb.QueryPlan]:
    """An engine with everything ready but the sales.

    The lines of a customer are few: more threads, or a better plan, cost more than they save (measured: a third).
    """
    con, query_plan = duckdb.connect(), _query_plan(timezone)
    con.raw_sql("set threads = 1")
    con.raw_sql("pragma disable_optimizer")
    for name, schema in INPUT_TABLES.items():
        con.create_table(name, schema=schema)
    query_plan.prepare(con)
    return con, query_plan


def _query_plan(timezone: str) -> duckdb.QueryPlan:
    """The recipe of a single moment, after the steps that cut sales to what was known by then and may be used."""
    inputs = {name: ibis.table(schema, name=name) for name, schema in INPUT_TABLES.items()}
    cutoff = inputs["latest"].as_of.as_scalar()
    visible_lines = ledger_lines.drop_sensitive(
        ledger_lines.visible_versions(inputs["ledger"], cutoff), inputs["sensitive"], inputs["allowing"]
    )
    query_plan, family_plan = duckdb.QueryPlan(), point_in_time.single_cutoff_plan(timezone)
    steps = {"sold": visible_lines, "interactions": ledger_lines.interactions_before(inputs["said"], cutoff)}
    query_plan.steps = [*((name, duckdb.to_sql(table)) for name, table in steps.items()), *family_plan.steps]
    query_plan.outputs = family_plan.outputs
    return query_plan


@contextmanager
def _loaded_tables(con: Backend, tables: dict[str, pa.Table]) -> Iterator[None]:
    """Fill the named tables, and leave nothing of anybody behind."""
    con.con.execute("begin")
    try:
        for name, table in tables.items():
            con.con.from_arrow(table).insert_into(name)
        yield
    finally:
        con.con.execute("rollback")


def _mirror_tables(ledger: Path, sales: pa.Table) -> dict[str, pa.Table]:
    """What the mirror says of the products and the customers in question."""
    products = _matching_rows(ledger / "products.parquet", PRODUCT_SCHEMA, sales)
    consents = _matching_rows(ledger / "consents.parquet", CONSENT_SCHEMA, sales)
    return {
        "products": products.select(ledger_lines.PRODUCT_SCHEMA.names),
        "sensitive": products.filter(products["sensitive"].fill_null(False)).select(["product_key"]),
        "allowing": consents.filter(consents["profiling_sensitive"].fill_null(False)).select(["customer_key"]),
    }


def _matching_rows(path: Path, schema: pa.Schema, sales: pa.Table) -> pa.Table:
    """The rows of a table that the sales ask for, by its first column."""
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
