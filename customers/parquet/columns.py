"""Arrow schemas of the Parquet copy, and batches of its rows read from the database."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from customers.database import engine
from customers.database.schema import customers, interactions, products, transactions, transactions_history
from customers.ledger.interactions import ANSWERED_AT_ATTRIBUTE, parse_answered_at
from customers.privacy import consents as privacy_consents
from customers.shop import money
from customers.shop.settings import Shop

INSTANT_TYPE = pa.timestamp("us", "UTC")
LINE_SCHEMA = pa.schema(
    [
        ("customer_key", pa.int64()),
        ("order_key", pa.int64()),
        ("product_key", pa.int64()),
        ("sold_at", INSTANT_TYPE),
        ("known_at", INSTANT_TYPE),
        ("superseded_at", INSTANT_TYPE),
        ("quantity", pa.float64()),
        ("amount", pa.float64()),
        ("discount", pa.float64()),
        ("kind", pa.string()),
        ("store_id", pa.string()),
        ("channel", pa.string()),
    ]
)
PRODUCT_SCHEMA = pa.schema(
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
INTERACTION_SCHEMA = pa.schema(
    [
        ("customer_key", pa.int64()),
        ("happened_at", INSTANT_TYPE),
        ("known_at", INSTANT_TYPE),
        ("channel", pa.string()),
        ("kind", pa.string()),
        ("status", pa.string()),
        ("campaign_id", pa.string()),
        ("offer_id", pa.string()),
        ("answered_at", INSTANT_TYPE),
    ]
)
CONSENT_SCHEMA = pa.schema(
    [("customer_key", pa.int64()), *((purpose, pa.bool_()) for purpose in privacy_consents.PROFILING_PURPOSES)]
)
BATCH_SIZE = 100_000

# The condition that selects rows of a table.
RowFilter = Callable[[sa.Table], sa.ColumnElement[bool]]


def line_batches(connection: sa.Connection, currency: str, row_filter: RowFilter) -> Iterator[pa.RecordBatch]:
    """All versions of the selected order lines in the columns of LINE_SCHEMA, in a fixed order."""
    selects = [
        _select_versions(table, currency, superseded_at).where(row_filter(table))
        for table, superseded_at in (
            (transactions, sa.literal(None, sa.BigInteger)),
            (transactions_history, transactions_history.c.superseded_at),
        )
    ]
    query = sa.union_all(*selects).order_by("sold_at", "order_key", "line_id", "known_at", "superseded_at")
    minor_per_major = float(10 ** money.EXPONENTS[currency])
    for batch in _column_batches(connection, query):
        by_name = dict(zip((*LINE_SCHEMA.names, "line_id"), batch, strict=True))
        arrays = [_to_arrow(by_name[field.name], field, minor_per_major) for field in LINE_SCHEMA]
        yield pa.record_batch(arrays, schema=LINE_SCHEMA)


def _select_versions(table: sa.Table, currency: str, superseded_at: sa.ColumnElement) -> sa.Select:
    """Columns in the order of LINE_SCHEMA and line_id; an amount in another currency than `currency` is null."""
    is_own_currency = table.c.currency == currency
    return sa.select(
        table.c.customer_key,
        table.c.order_key,
        table.c.product_key,
        table.c.sold_at,
        table.c.known_at,
        superseded_at.label("superseded_at"),
        table.c.quantity,
        sa.case((is_own_currency, table.c.amount_minor)).label("amount"),
        sa.case((is_own_currency, table.c.discount_minor)).label("discount"),
        table.c.kind,
        table.c.store_id,
        table.c.channel,
        table.c.line_id,
    )


def product_batches(connection: sa.Connection, shop: Shop) -> Iterator[pa.RecordBatch]:
    """All products in the columns of PRODUCT_SCHEMA; a price in another currency is null."""
    columns, currency = products.c, shop.currency
    price = sa.case((columns.currency == currency, columns.price_minor)).label("price")
    selected = [columns[name] if name != "price" else price for name in PRODUCT_SCHEMA.names]
    minor_per_major = float(10 ** money.EXPONENTS[currency])
    for batch in _column_batches(connection, sa.select(*selected).order_by(columns.product_key)):
        arrays = [
            _to_arrow(column, field, minor_per_major) for column, field in zip(batch, PRODUCT_SCHEMA, strict=True)
        ]
        yield pa.record_batch(arrays, schema=PRODUCT_SCHEMA)


def all_interaction_batches(connection: sa.Connection, shop: Shop) -> Iterator[pa.RecordBatch]:
    """All interactions in the columns of INTERACTION_SCHEMA."""
    return interaction_batches(connection, sa.true())


def interaction_batches(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> Iterator[pa.RecordBatch]:
    """The selected interactions in the columns of INTERACTION_SCHEMA, without their encrypted texts."""
    # The time of the answer is in the JSON attributes of the interaction.
    answer_attributes = sa.case(
        (interactions.c.attributes.contains(ANSWERED_AT_ATTRIBUTE), interactions.c.attributes)
    ).label(ANSWERED_AT_ATTRIBUTE)
    selected = [
        answer_attributes if name == ANSWERED_AT_ATTRIBUTE else interactions.c[name]
        for name in INTERACTION_SCHEMA.names
    ]
    order = [interactions.c[name] for name in ("happened_at", "customer_key", "source", "interaction_id")]
    for batch in _column_batches(connection, sa.select(*selected).where(condition).order_by(*order)):
        batch[-1] = tuple(map(parse_answered_at, batch[-1]))
        arrays = [_to_arrow(column, field, 1.0) for column, field in zip(batch, INTERACTION_SCHEMA, strict=True)]
        yield pa.record_batch(arrays, schema=INTERACTION_SCHEMA)


def consent_batches(connection: sa.Connection, shop: Shop) -> Iterator[pa.RecordBatch]:
    """A row per customer in the columns of CONSENT_SCHEMA, also where the shop's default applies."""
    allowing_by_purpose = [
        privacy_consents.all_allowed_customers(connection, shop, purpose)
        for purpose in privacy_consents.PROFILING_PURPOSES
    ]
    for (keys,) in _column_batches(connection, sa.select(customers.c.customer_key).order_by(customers.c.customer_key)):
        columns = [keys, *([key in allowing for key in keys] for allowing in allowing_by_purpose)]
        arrays = [_to_arrow(column, field, 1.0) for column, field in zip(columns, CONSENT_SCHEMA, strict=True)]
        yield pa.record_batch(arrays, schema=CONSENT_SCHEMA)


def _column_batches(connection: sa.Connection, query: sa.Select | sa.CompoundSelect) -> Iterator[list[tuple]]:
    """The columns of a query, in batches of at most BATCH_SIZE rows."""
    for rows in engine.fetch_batches(connection, query, BATCH_SIZE):
        yield list(zip(*rows, strict=True))


def _to_arrow(column: Sequence, field: pa.Field, minor_per_major: float) -> pa.Array:
    if field.name in ("amount", "discount", "price"):
        minor = np.array(column, np.float64)  # None becomes NaN here, and null in the next line
        return pa.array(minor / minor_per_major, pa.float64(), from_pandas=True)
    if field.type == INSTANT_TYPE:
        return pa.array(column, pa.int64()).cast(INSTANT_TYPE)
    if field.type == pa.bool_():
        return pa.array([bool(value) for value in column], pa.bool_())
    return pa.array(column, field.type)
