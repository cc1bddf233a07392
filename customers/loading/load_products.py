"""Loads record kind `products`, and creates stubs for products that sales or offers name first."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import sqlalchemy as sa

from customers.catalogue import products as catalogue_products
from customers.database import change_counters, engine, ids
from customers.database.schema import products
from customers.database.schema import transactions as lines
from customers.database.writes import RowCounts, TransactionFactory
from customers.ledger import refresh_queue
from customers.loading import validation
from customers.loading.connectors.files import Records
from customers.loading.record_kind import RecordKind
from customers.loading.sql_text import quote_identifier
from customers.loading.validation import ColumnCheck
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

COLUMNS = (
    "product_id",
    *catalogue_products.TEXT_COLUMNS,
    "price",
    "cost",
    "currency",
    "repurchase",
    "stock",
    "sensitive",
)
# Columns of table `products` that a record sets; price and cost in minor units.
STORED_COLUMNS = (
    *catalogue_products.TEXT_COLUMNS,
    "price_minor",
    "cost_minor",
    "currency",
    "repurchase",
    "stock",
    "sensitive",
    "attributes",
)
BATCH_SIZE = 20_000


def get_or_create_products(
    open_transaction: TransactionFactory, source: str, product_ids: Sequence[str]
) -> tuple[dict[str, int], int]:
    """The key of each of these ids of a source, and the number of new ids for which a stub was created."""
    with open_transaction() as connection:
        existing = _select_keys(connection, source, product_ids)
        missing = [product_id for product_id in product_ids if product_id not in existing]
        keys = _assign_keys(connection, missing)
        changed_at = to_micros(datetime.now(UTC))
        columns = ["product_key", "product_id", "source", "repurchase", "sensitive", "stub", "content", "changed_at"]
        rows = ((key, name, source, "always", False, True, 0, changed_at) for name, key in keys.items())
        engine.insert_many(connection, products, columns, rows)
        if keys:
            change_counters.increment_counters(connection, {change_counters.PRODUCTS_COUNTER})
    return existing | keys, len(keys)


def _select_keys(connection: sa.Connection, source: str, product_ids: Sequence[str]) -> dict[str, int]:
    query = sa.select(products.c.product_id, products.c.product_key).where(products.c.source == source)
    if len(product_ids) > ids.FULL_SCAN_ABOVE:
        return dict(connection.execute(query).tuples().all())
    keys: dict[str, int] = {}
    for chunk in engine.chunks(product_ids, 5_000):
        keys.update(connection.execute(query.where(products.c.product_id.in_(chunk))).tuples().all())
    return keys


def _assign_keys(connection: sa.Connection, product_ids: Sequence[str]) -> dict[str, int]:
    last = connection.execute(sa.select(sa.func.max(products.c.product_key))).scalar() or 0
    return {product_id: key for key, product_id in enumerate(product_ids, last + 1)}


def _checks(shop: Shop) -> list[ColumnCheck]:
    is_valid = "regexp_full_match(lower(repurchase), 'never|always|after_days:[0-9]+')"
    reason = "repurchase is none of never, after_days:N, always"
    repurchase = ColumnCheck("repurchase", "coalesce(lower(repurchase), 'always')", ((f"not {is_valid}", reason),))
    return [
        validation.identifier("product_id"),
        *(validation.any_text(name) for name in catalogue_products.TEXT_COLUMNS),
        validation.currency(shop.currency),
        validation.amount("price", negative=False),
        validation.amount("cost", negative=False),
        repurchase,
        validation.number("stock"),
        validation.flag("sensitive"),
    ]


def _load(shop: Shop, source: str, records: Records, open_transaction: TransactionFactory) -> RowCounts:
    """Write new and changed products in batches; a column that the file lacks keeps its stored value."""
    with open_transaction() as connection:
        product_ids = records.connection.sql(
            "select distinct product_id from checked where reason is null"
        ).to_arrow_table()
        records.connection.register("before", _stored_products(connection, source, product_ids.column(0).to_pylist()))
    _merge_stored(records)
    counts = RowCounts()
    reader = records.connection.sql("select * from merged where changed order by product_id").to_arrow_reader(
        BATCH_SIZE
    )
    for batch in reader:
        with open_transaction() as connection:
            rows = batch.to_pylist()
            counts += _upsert(connection, source, rows)
            change_counters.increment_counters(connection, {change_counters.PRODUCTS_COUNTER})
            if records.changed_customers is not None:
                buyers = _select_buyers(
                    connection, source, [row["product_id"] for row in rows if row["sensitivity_changed"]]
                )
                refresh_queue.enqueue(connection, buyers)
                records.changed_customers |= buyers
    return counts + RowCounts(unchanged=records.count("merged", "not changed"))


def _select_buyers(connection: sa.Connection, source: str, product_ids: list[str]) -> set[int]:
    """The customers who ever bought these products: a new sensitivity changes what may be computed about them."""
    buyers: set[int] = set()
    for chunk in engine.chunks(product_ids, 5_000):
        product_keys = sa.select(products.c.product_key).where(
            products.c.source == source, products.c.product_id.in_(chunk)
        )
        query = sa.select(lines.c.customer_key).where(lines.c.product_key.in_(product_keys)).distinct()
        buyers.update(connection.execute(query.where(lines.c.customer_key.is_not(None))).scalars())
    return buyers


def _stored_products(connection: sa.Connection, source: str, product_ids: Sequence[str]) -> pa.Table:
    """The stored rows of these products; above ids.FULL_SCAN_ABOVE ids, of all products of the source."""
    names = ["product_id", *STORED_COLUMNS, "content", "stub"]
    query = sa.select(*(products.c[name] for name in names)).where(products.c.source == source)
    use_filter = len(product_ids) <= ids.FULL_SCAN_ABOVE
    chunks = engine.chunks(product_ids, 5_000) if use_filter else [None]
    queries = (query if chunk is None else query.where(products.c.product_id.in_(chunk)) for chunk in chunks)
    rows = [row for chunk_query in queries for row in connection.execute(chunk_query).tuples()]
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    arrow_types = {"content": pa.int64(), "stub": pa.bool_(), "sensitive": pa.bool_(), "stock": pa.float64()}
    arrow_types |= {"price_minor": pa.int64(), "cost_minor": pa.int64()}
    arrays = [pa.array(column, arrow_types.get(name, pa.string())) for name, column in zip(names, columns, strict=True)]
    return pa.table(arrays, names=names)


def _merge_stored(records: Records) -> None:
    extra = [name for name in records.columns if name not in COLUMNS]
    packed_columns = ", ".join(f"{quote_identifier(name)} := {validation.trimmed(name)}" for name in extra)
    # A merge patch drops nulls, and keeps the attributes that this file lacks.
    attributes_patch = f"json_merge_patch('{{}}', to_json(struct_pack({packed_columns})))" if extra else "'{}'"
    fields = ", ".join(_merged_column(name, records.columns) for name in STORED_COLUMNS if name != "attributes")
    digest = f"concat({', chr(31), '.join(STORED_COLUMNS)})"
    records.connection.execute(
        f"""
        create temp table merged as
        select *, not is_stored or stub_before or content <> content_before as changed,
               is_stored and sensitive <> sensitive_before as sensitivity_changed
        from (
          select *, (md5_number_lower({digest}) >> 1)::bigint as content from (
            select c.product_id, {fields},
                   nullif(json_merge_patch(coalesce(b.attributes, '{{}}'), {attributes_patch})::varchar, '{{}}')
                     as attributes,
                   b.product_id is not null as is_stored, b.content as content_before, b.stub as stub_before,
                   b.sensitive as sensitive_before
            from checked c
            join (select * exclude ({", ".join(quote_identifier(name) for name in COLUMNS)}) from raw) raw
              using (file_no, row_no)
            left join before b on b.product_id = c.product_id
            where c.reason is null and not c.is_repeat))
        """
    )


def _merged_column(name: str, present: Sequence[str]) -> str:
    """The file's value where it has the column; else the stored value, or the default for a new product."""
    is_present = name.removesuffix("_minor") in present
    if name == "currency":  # an amount brings its currency with it
        is_present = is_present or "price" in present or "cost" in present
    return f"c.{name}" if is_present else f"case when b.product_id is null then c.{name} else b.{name} end as {name}"


def _upsert(connection: sa.Connection, source: str, rows: list[dict]) -> RowCounts:
    changed_at = to_micros(datetime.now(UTC))
    new = [row for row in rows if not row["is_stored"]]
    keys = _assign_keys(connection, [row["product_id"] for row in new])
    columns = ["product_key", "product_id", "source", *STORED_COLUMNS, "stub", "content", "changed_at"]
    engine.insert_many(
        connection,
        products,
        columns,
        (
            (
                keys[row["product_id"]],
                row["product_id"],
                source,
                *_stored_values(row),
                False,
                row["content"],
                changed_at,
            )
            for row in new
        ),
    )
    existing = [row for row in rows if row["is_stored"]]
    if existing:
        statement = products.update().where(
            products.c.source == source, products.c.product_id == sa.bindparam("this_id")
        )
        values = [
            dict(zip(STORED_COLUMNS, _stored_values(row), strict=True))
            | {"this_id": row["product_id"], "stub": False, "content": row["content"], "changed_at": changed_at}
            for row in existing
        ]
        connection.execute(statement, values)
    return RowCounts(inserted=len(new), updated=len(existing))


def _stored_values(row: dict) -> tuple:
    return tuple(row[name] for name in STORED_COLUMNS)


RECORD_KIND = RecordKind(
    name="products",
    required=("product_id",),
    columns=COLUMNS,
    key=("product_id",),
    clear_text_columns=COLUMNS,
    checks=_checks,
    load=_load,
    is_partial=True,
)
