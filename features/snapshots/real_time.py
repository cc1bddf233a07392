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

from features import engine, lines
from features import moments as recipes

PRODUCTS = pa.schema(
    [
        ("product_key", pa.int64()),
        ("department", pa.string()),
        ("category", pa.string()),
        ("brand", pa.string()),
        ("sensitive", pa.bool_()),
    ]
)
CONSENTS = pa.schema([("customer_key", pa.int64()), ("profiling_sensitive", pa.bool_())])

#: What a customer's numbers are made of.
TABLES = {
    "ledger": lines.LEDGER,
    "said": lines.INTERACTIONS,
    "products": lines.PRODUCTS,
    "sensitive": ibis.schema({"product_key": "int64"}),
    "allowing": lines.KEYS,
    "latest": ibis.schema(recipes.ASKED["latest"]),
}
_turn = Lock()


def figures(
    sales: pa.Table, interactions: pa.Table, ledger: Path, *, as_of: datetime, timezone: str
) -> dict[str, pd.DataFrame]:
    """Every view's row of a few customers as of a moment: view -> frame, ready for `store.push`.

    sales are all versions of all lines of these customers in the mirror's columns, and interactions all of
    theirs; products and consents are read from the mirror's folder. To the last digit what `snapshot.write`
    gives the same customers at that moment. Who bought nothing before it has a row in engagement at most.
    """
    tables = {"ledger": sales.select(lines.LEDGER.names), "said": interactions.select(lines.INTERACTIONS.names)}
    tables |= _mirrored(Path(ledger), sales) | {"latest": engine.instants([as_of], timezone)}
    with _turn:
        con, recipe = _till(timezone)
        with _laid_out(con, tables):
            return {name: table.to_pandas() for name, table in recipe.repeat(con).items()}


@cache
def _till(timezone: str) -> tuple[Backend, engine.Recipe]:
    """An engine with everything ready but the sales.

    The lines of a customer are few: more threads, or a better plan, cost more than they save (measured: a third).
    """
    con, recipe = engine.connect(), _recipe(timezone)
    con.raw_sql("set threads = 1")
    con.raw_sql("pragma disable_optimizer")
    for name, schema in TABLES.items():
        con.create_table(name, schema=schema)
    recipe.learn(con)
    return con, recipe


def _recipe(timezone: str) -> engine.Recipe:
    """The recipe of a single moment, after the steps that cut sales to what was known by then and may be used."""
    given = {name: ibis.table(schema, name=name) for name, schema in TABLES.items()}
    cut = given["latest"].as_of.as_scalar()
    known = lines.permitted(lines.visible(given["ledger"], cut), given["sensitive"], given["allowing"])
    first, rest = engine.Recipe(), recipes.till(timezone)
    steps = {"sold": known, "interactions": lines.happened(given["said"], cut)}
    first.steps = [*((name, engine.sql(table)) for name, table in steps.items()), *rest.steps]
    first.answers = rest.answers
    return first


@contextmanager
def _laid_out(con: Backend, tables: dict[str, pa.Table]) -> Iterator[None]:
    """Fill the named tables, and leave nothing of anybody behind."""
    con.con.execute("begin")
    try:
        for name, table in tables.items():
            con.con.from_arrow(table).insert_into(name)
        yield
    finally:
        con.con.execute("rollback")


def _mirrored(ledger: Path, sales: pa.Table) -> dict[str, pa.Table]:
    """What the mirror says of the products and the customers in question."""
    products = _some(ledger / "products.parquet", PRODUCTS, sales)
    consents = _some(ledger / "consents.parquet", CONSENTS, sales)
    return {
        "products": products.select(lines.PRODUCTS.names),
        "sensitive": products.filter(products["sensitive"].fill_null(False)).select(["product_key"]),
        "allowing": consents.filter(consents["profiling_sensitive"].fill_null(False)).select(["customer_key"]),
    }


def _some(path: Path, schema: pa.Schema, sales: pa.Table) -> pa.Table:
    """The rows of a table that the sales ask for, by its first column."""
    if not path.exists():
        return schema.empty_table()
    table, key = _read(path, path.stat().st_mtime_ns, schema), schema.names[0]
    return table.filter(pc.is_in(table[key], pc.unique(sales[key])))


@lru_cache(maxsize=8)
def _read(path: Path, _changed: int, schema: pa.Schema) -> pa.Table:
    table = pq.read_table(path, columns=[name for name in schema.names if name in pq.read_schema(path).names])
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names).cast(schema)
