"""The mirror: a Parquet copy of the database, one file per month of sales, from which features are computed.

month=YYYY-MM/part.parquet, in the shop's ledger folder, has every version of the order lines sold in that UTC month.
Beside them, products.parquet has the catalogue, interactions.parquet the contacts and reactions, and consents.parquet
what each customer allows to be computed. Each file says which counter of changes it is of, so that every home of a shop
knows by itself what it has to write again. The mirror can be deleted and rebuilt at any time.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from customers.database import change_counters, engine
from customers.database.schema import interactions
from customers.ledger import mirror_counter
from customers.ledger.transactions import month_bounds
from customers.parquet import columns
from customers.parquet.columns import CONSENT_SCHEMA, INTERACTION_SCHEMA, LINE_SCHEMA, PRODUCT_SCHEMA
from customers.privacy import consents
from customers.shop import durable_files
from customers.shop.settings import Shop

DEFAULT_KEY = b"consent_default"
CHUNK_SIZE = 5_000


def refresh(shop: Shop, *, only: Collection[str] | None = None) -> list[str]:
    """Rewrite the months and tables that changed since this home's last refresh; returns their names.

    With `only`, at most the tables and months of these names.
    """
    numbers = _read_counters(shop)
    names = sorted(numbers if only is None else numbers.keys() & set(only))
    stale = [name for name in names if not _is_current(shop, name, numbers[name])]
    return [name for name in stale if _rewrite_file(shop, name, numbers[name])]


def rebuild(shop: Shop) -> list[str]:
    """Rebuild the whole mirror from the database; the content is the same as after refreshes. Returns the names."""
    return [name for name, number in sorted(_read_counters(shop).items()) if _rewrite_file(shop, name, number)]


def load_lines(shop: Shop, keys: Iterable[int]) -> pa.Table:
    """All versions of all order lines of these customers, columns of LINE_SCHEMA, read from the database."""
    with engine.read_transaction(shop) as connection:
        batches = [
            batch
            for chunk in engine.chunks(keys, CHUNK_SIZE)
            for batch in columns.line_batches(connection, shop.currency, _customer_filter(chunk))
        ]
    return pa.Table.from_batches(batches, schema=LINE_SCHEMA)


def load_interactions(shop: Shop, keys: Iterable[int]) -> pa.Table:
    """All interactions of these customers, columns of INTERACTION_SCHEMA, read from the database."""
    with engine.read_transaction(shop) as connection:
        batches = [
            batch
            for chunk in engine.chunks(keys, CHUNK_SIZE)
            for batch in columns.interaction_batches(connection, _customer_filter(chunk)(interactions))
        ]
    return pa.Table.from_batches(batches, schema=INTERACTION_SCHEMA)


def _customer_filter(keys: list[int]) -> columns.RowFilter:
    return lambda table: table.c.customer_key.in_(keys)


def _month_filter(month: str) -> columns.RowFilter:
    first, end = month_bounds(month)
    return lambda table: (table.c.sold_at >= first) & (table.c.sold_at < end)


def _file_path(shop: Shop, name: str) -> Path:
    return shop.ledger / (f"{name}.parquet" if name in TABLES else f"month={name}/part.parquet")


def _read_counters(shop: Shop) -> dict[str, int]:
    """The counters of every month and table that has a file here; offers have none."""
    with engine.read_transaction(shop) as connection:
        counters = change_counters.read_counters(connection)
    numbers = {name: number for name, number in counters.items() if name in TABLES or name[:1].isdigit()}
    return dict.fromkeys(TABLES, 0) | numbers


def _is_current(shop: Shop, name: str, number: int) -> bool:
    """Whether the file is of this counter, with the current columns and, for consents, the default of the settings."""
    path = _file_path(shop, name)
    if not path.exists():
        return False
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid:  # cut off when the power failed
        return False
    metadata = dict(schema.metadata or {})
    has_current_default = name != change_counters.CONSENTS_COUNTER or metadata.get(DEFAULT_KEY) == _consent_default(
        shop
    )
    expected = TABLES[name][0] if name in TABLES else LINE_SCHEMA
    return mirror_counter.read_counter(path) == number and has_current_default and schema.names == expected.names


def _rewrite_file(shop: Shop, name: str, number: int) -> bool:
    """Write the file of a month or table; whether there was one to write or to remove.

    `number` is its counter, read before the rows are: a later change leaves the file stale.
    """
    path = _file_path(shop, name)
    with engine.read_transaction(shop) as connection:
        if name in TABLES:
            schema, rows = TABLES[name]
            if name == change_counters.CONSENTS_COUNTER:
                schema = schema.with_metadata({DEFAULT_KEY: _consent_default(shop)})
            _write_file(path, mirror_counter.with_counter(schema, number), rows(connection, shop))
            return True
        batches = columns.line_batches(connection, shop.currency, _month_filter(name))
        first = next(batches, None)
        if first is not None:
            _write_file(path, mirror_counter.with_counter(LINE_SCHEMA, number), _prepend(first, batches))
            return True
    if not path.parent.exists():
        return False
    path.unlink(missing_ok=True)
    path.parent.rmdir()
    return True


def _prepend(first: pa.RecordBatch, others: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from others


def _write_file(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    """Write beside the file, then replace it: a reader gets the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
    durable_files.sync(partial)
    os.replace(partial, path)


def _consent_default(shop: Shop) -> bytes:
    return json.dumps({purpose: shop.consent_default[purpose] for purpose in consents.PROFILING_PURPOSES}).encode()


# The tables beside the months, by their counters: schema and reader of each.
TABLES: dict[str, tuple[pa.Schema, Callable[[sa.Connection, Shop], Iterator[pa.RecordBatch]]]] = {
    change_counters.PRODUCTS_COUNTER: (PRODUCT_SCHEMA, columns.product_batches),
    change_counters.INTERACTIONS_COUNTER: (INTERACTION_SCHEMA, columns.all_interaction_batches),
    change_counters.CONSENTS_COUNTER: (CONSENT_SCHEMA, columns.consent_batches),
}
