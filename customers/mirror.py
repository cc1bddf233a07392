"""Mirror: a copy of the ledger in columns, a file a month, for everything that computes.

HOME/ledger/month=YYYY-MM/part.parquet holds the lines sold in that UTC month, every version of them;
HOME/ledger/products.parquet the catalogue. It can be deleted and made again at any time.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from customers import catalogue, database, money
from customers.schema import ledger_months, products, transactions, transactions_history
from customers.shop import Shop
from customers.transactions import month_bounds

INSTANT = pa.timestamp("us", "UTC")
LINES = pa.schema(
    [
        ("customer_key", pa.int64()),
        ("order_key", pa.int64()),
        ("product_key", pa.int64()),
        ("sold_at", INSTANT),
        ("known_at", INSTANT),
        ("superseded_at", INSTANT),
        ("quantity", pa.float64()),
        ("amount", pa.float64()),
        ("discount", pa.float64()),
        ("kind", pa.string()),
        ("store_id", pa.string()),
        ("channel", pa.string()),
    ]
)
PRODUCTS = pa.schema(
    [
        ("product_key", pa.int64()),
        ("department", pa.string()),
        ("category", pa.string()),
        ("subcategory", pa.string()),
        ("brand", pa.string()),
        ("price", pa.float64()),
        ("sensitive", pa.bool_()),
    ]
)
BATCH = 100_000


def refresh(shop: Shop) -> list[str]:
    """Rewrite the months that changed since the last time, and the products; returns what was rewritten."""
    with database.reading(shop) as connection:
        marks = connection.execute(sa.select(ledger_months).order_by(ledger_months.c.month)).all()
    numbers = {mark.month: mark.changed_no for mark in marks}
    numbers.setdefault(catalogue.MIRROR_MARK, 0)
    settled = {mark.month for mark in marks if mark.changed_no == mark.mirrored_no}
    stale = [name for name in numbers if name not in settled or not _path(shop, name).exists()]
    for name in stale:
        _rewrite(shop, name)
        _settle(shop, name, numbers[name])
    return stale


def rebuild(shop: Shop) -> list[str]:
    """Make the whole mirror again from the database; the content is the same as after refreshes."""
    for path in (shop.home / "ledger").glob("month=*/part.parquet"):
        path.unlink()
    with database.writing(shop) as connection:
        connection.execute(ledger_months.update().values(mirrored_no=0))
    return refresh(shop)


def _path(shop: Shop, name: str) -> Path:
    folder = shop.home / "ledger"
    return folder / "products.parquet" if name == catalogue.MIRROR_MARK else folder / f"month={name}" / "part.parquet"


def _rewrite(shop: Shop, name: str) -> None:
    path = _path(shop, name)
    with database.reading(shop) as connection:
        if name == catalogue.MIRROR_MARK:
            return _write(path, PRODUCTS, _products(connection, shop.currency))
        batches = _lines(connection, name, shop.currency)
        first = next(batches, None)
        if first is not None:
            return _write(path, LINES, _chain(first, batches))
    path.unlink(missing_ok=True)
    if path.parent.exists():
        path.parent.rmdir()
    return None


def _chain(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


def _write(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
    """Beside it first, then in its place: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
    os.replace(partial, path)


def _settle(shop: Shop, name: str, number: int) -> None:
    """The month is mirrored as of the mark that was seen before reading; a later mark keeps it stale."""
    with database.writing(shop) as connection:
        change = ledger_months.update().where(ledger_months.c.month == name)
        connection.execute(change.values(mirrored_no=number))


def _lines(connection: sa.Connection, month: str, currency: str) -> Iterator[pa.RecordBatch]:
    first, after = month_bounds(month)
    both = [
        _versions(table, currency, superseded).where(table.c.sold_at >= first, table.c.sold_at < after)
        for table, superseded in (
            (transactions, sa.literal(None, sa.BigInteger)),
            (transactions_history, transactions_history.c.superseded_at),
        )
    ]
    query = sa.union_all(*both).order_by("sold_at", "order_key", "line_id", "known_at", "superseded_at")
    unit = float(10 ** money.EXPONENTS[currency])
    for columns in _columns(connection, query):
        named = dict(zip((*LINES.names, "line_id"), columns, strict=True))
        arrays = [_array(named[field.name], field, unit) for field in LINES]
        yield pa.record_batch(arrays, schema=LINES)


def _versions(table: sa.Table, currency: str, superseded_at: sa.ColumnElement) -> sa.Select:
    """Columns in the order of LINES; money of another currency is not known in the shop's own."""
    own = table.c.currency == currency
    return sa.select(
        table.c.customer_key,
        table.c.order_key,
        table.c.product_key,
        table.c.sold_at,
        table.c.known_at,
        superseded_at.label("superseded_at"),
        table.c.quantity,
        sa.case((own, table.c.amount_minor)).label("amount"),
        sa.case((own, table.c.discount_minor)).label("discount"),
        table.c.kind,
        table.c.store_id,
        table.c.channel,
        table.c.line_id,
    )


def _products(connection: sa.Connection, currency: str) -> Iterator[pa.RecordBatch]:
    columns = products.c
    price = sa.case((columns.currency == currency, columns.price_minor)).label("price")
    named = [columns[name] if name != "price" else price for name in PRODUCTS.names]
    unit = float(10 ** money.EXPONENTS[currency])
    for fetched in _columns(connection, sa.select(*named).order_by(columns.product_key)):
        arrays = [_array(column, field, unit) for column, field in zip(fetched, PRODUCTS, strict=True)]
        yield pa.record_batch(arrays, schema=PRODUCTS)


def _columns(connection: sa.Connection, query: sa.Select | sa.CompoundSelect) -> Iterator[list[tuple]]:
    """Columns of at most BATCH rows at a time."""
    for rows in database.fetched(connection, query, BATCH):
        yield list(zip(*rows, strict=True))


def _array(column: Sequence, field: pa.Field, unit: float) -> pa.Array:
    if field.name in ("amount", "discount", "price"):
        minor = np.array(column, np.float64)  # nothing becomes NaN here, and null below
        return pa.array(minor / unit, pa.float64(), from_pandas=True)
    if field.type == INSTANT:
        return pa.array(column, pa.int64()).cast(INSTANT)
    if field.type == pa.bool_():
        return pa.array([bool(value) for value in column], pa.bool_())
    return pa.array(column, field.type)
