"""The mirror: a Parquet copy of the database, one file per month of sales, from which features are computed.

HOME/ledger/month=YYYY-MM/part.parquet has every version of the order lines sold in that UTC month. Beside them,
products.parquet has the catalogue, interactions.parquet the contacts and reactions, and consents.parquet what each
customer allows to be computed. The mirror can be deleted and rebuilt at any time.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from customers.database import change_counters, engine
from customers.database.schema import interactions, ledger_months
from customers.ledger.transactions import month_bounds
from customers.parquet import columns
from customers.parquet.columns import CONSENT_SCHEMA, INTERACTION_SCHEMA, LINE_SCHEMA, PRODUCT_SCHEMA
from customers.privacy import consents
from customers.shop.settings import Shop

DEFAULT_KEY = b"consent_default"
CHUNK_SIZE = 5_000


def refresh(shop: Shop, *, only: Collection[str] | None = None) -> list[str]:
    """Rewrite the months and tables that changed since the last refresh; returns their names.

    With `only`, at most the tables and months of these names.
    """
    with engine.read_transaction(shop) as connection:
        counters = connection.execute(sa.select(ledger_months).order_by(ledger_months.c.month)).all()
    # Only the counter of offers has no file here.
    numbers = {
        counter.month: counter.changed_no
        for counter in counters
        if counter.month in TABLES or counter.month[:1].isdigit()
    }
    numbers = dict.fromkeys(TABLES, 0) | numbers
    current = set(numbers) - {counter.month for counter in counters if counter.changed_no != counter.mirrored_no}
    stale = [name for name in sorted(numbers) if name not in current or not _is_current(shop, name)]
    stale = [name for name in stale if only is None or name in only]
    for name in stale:
        _rewrite_file(shop, name)
        _mark_mirrored(shop, name, numbers[name])
    return stale


def rebuild(shop: Shop) -> list[str]:
    """Rebuild the whole mirror from the database; the content is the same as after refreshes. Returns the names."""
    for path in (shop.home / "ledger").glob("month=*/part.parquet"):
        path.unlink()
    with engine.write_transaction(shop) as connection:
        connection.execute(ledger_months.update().values(mirrored_no=0))
    return refresh(shop)


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
    folder = shop.home / "ledger"
    return folder / f"{name}.parquet" if name in TABLES else folder / f"month={name}" / "part.parquet"


def _is_current(shop: Shop, name: str) -> bool:
    """Whether the file exists with the current columns and, for consents, the current defaults of the settings."""
    path = _file_path(shop, name)
    if name not in TABLES or not path.exists():
        return path.exists()
    schema = pq.read_schema(path)
    has_current_default = name != change_counters.CONSENTS_COUNTER or dict(schema.metadata or {}).get(
        DEFAULT_KEY
    ) == _consent_default(shop)
    return has_current_default and schema.names == TABLES[name][0].names


def _rewrite_file(shop: Shop, name: str) -> None:
    path = _file_path(shop, name)
    with engine.read_transaction(shop) as connection:
        if name in TABLES:
            schema, rows = TABLES[name]
            if name == change_counters.CONSENTS_COUNTER:
                schema = schema.with_metadata({DEFAULT_KEY: _consent_default(shop)})
            return _write_file(path, schema, rows(connection, shop))
        batches = columns.line_batches(connection, shop.currency, _month_filter(name))
        first = next(batches, None)
        if first is not None:
            return _write_file(path, LINE_SCHEMA, _prepend(first, batches))
    path.unlink(missing_ok=True)
    if path.parent.exists():
        path.parent.rmdir()
    return None


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
    os.replace(partial, path)


def _mark_mirrored(shop: Shop, name: str, number: int) -> None:
    """Record the counter that was read before the rows were; a later change keeps the file stale."""
    with engine.write_transaction(shop) as connection:
        change = ledger_months.update().where(ledger_months.c.month == name)
        connection.execute(change.values(mirrored_no=number))


def _consent_default(shop: Shop) -> bytes:
    return json.dumps({purpose: shop.consent_default[purpose] for purpose in consents.PROFILING_PURPOSES}).encode()


# The tables beside the months, by their counters: schema and reader of each.
TABLES: dict[str, tuple[pa.Schema, Callable[[sa.Connection, Shop], Iterator[pa.RecordBatch]]]] = {
    change_counters.PRODUCTS_COUNTER: (PRODUCT_SCHEMA, columns.product_batches),
    change_counters.INTERACTIONS_COUNTER: (INTERACTION_SCHEMA, columns.all_interaction_batches),
    change_counters.CONSENTS_COUNTER: (CONSENT_SCHEMA, columns.consent_batches),
}
