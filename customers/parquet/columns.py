"""Columns: what the database holds in rows, in the shape in which everything computes."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from customers import consent, database, money
from customers.interactions import ANSWERED_AT, answered_at
from customers.schema import customers, interactions, products, transactions, transactions_history
from customers.shop import Shop

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
INTERACTIONS = pa.schema(
    [
        ("customer_key", pa.int64()),
        ("happened_at", INSTANT),
        ("known_at", INSTANT),
        ("channel", pa.string()),
        ("kind", pa.string()),
        ("status", pa.string()),
        ("campaign_id", pa.string()),
        ("offer_id", pa.string()),
        ("answered_at", INSTANT),
    ]
)
CONSENTS = pa.schema([("customer_key", pa.int64()), *((purpose, pa.bool_()) for purpose in consent.PROFILING)])
BATCH = 100_000

# Which rows of a table.
Choice = Callable[[sa.Table], sa.ColumnElement[bool]]


def lines(connection: sa.Connection, currency: str, chosen: Choice) -> Iterator[pa.RecordBatch]:
    """The lines that are chosen, all versions of them, in a fixed order."""
    both = [
        _versions(table, currency, superseded).where(chosen(table))
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


def catalogued(connection: sa.Connection, shop: Shop) -> Iterator[pa.RecordBatch]:
    """What the shop sells."""
    columns, currency = products.c, shop.currency
    price = sa.case((columns.currency == currency, columns.price_minor)).label("price")
    named = [columns[name] if name != "price" else price for name in PRODUCTS.names]
    unit = float(10 ** money.EXPONENTS[currency])
    for fetched in _columns(connection, sa.select(*named).order_by(columns.product_key)):
        arrays = [_array(column, field, unit) for column, field in zip(fetched, PRODUCTS, strict=True)]
        yield pa.record_batch(arrays, schema=PRODUCTS)


def reached(connection: sa.Connection, shop: Shop) -> Iterator[pa.RecordBatch]:
    """Every interaction."""
    return contacts_with(connection, sa.true())


def contacts_with(connection: sa.Connection, chosen: sa.ColumnElement[bool]) -> Iterator[pa.RecordBatch]:
    """The interactions that are chosen, without anything said in them."""
    # Since when it is answered is an attribute of the interaction.
    answer = sa.case((interactions.c.attributes.contains(ANSWERED_AT), interactions.c.attributes)).label(ANSWERED_AT)
    named = [answer if name == ANSWERED_AT else interactions.c[name] for name in INTERACTIONS.names]
    order = [interactions.c[name] for name in ("happened_at", "customer_key", "source", "interaction_id")]
    for fetched in _columns(connection, sa.select(*named).where(chosen).order_by(*order)):
        fetched[-1] = tuple(map(answered_at, fetched[-1]))
        arrays = [_array(column, field, 1.0) for column, field in zip(fetched, INTERACTIONS, strict=True)]
        yield pa.record_batch(arrays, schema=INTERACTIONS)


def consents(connection: sa.Connection, shop: Shop) -> Iterator[pa.RecordBatch]:
    """A row for everybody, also for who has said nothing."""
    granted = [consent.granted(connection, shop, purpose) for purpose in consent.PROFILING]
    for (keys,) in _columns(connection, sa.select(customers.c.customer_key).order_by(customers.c.customer_key)):
        columns = [keys, *([key in allowing for key in keys] for allowing in granted)]
        arrays = [_array(column, field, 1.0) for column, field in zip(columns, CONSENTS, strict=True)]
        yield pa.record_batch(arrays, schema=CONSENTS)


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
