"""Loads record kind `transactions`: order lines, grouped into whole orders and written to the ledger in batches."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from customers import clock
from customers.database.writes import RowCounts, TransactionFactory
from customers.ledger import line_digest, transactions
from customers.loading import load_customers, load_products, validation
from customers.loading.connectors.files import Records
from customers.loading.record_kind import RecordKind
from customers.loading.sql_text import quote_literal
from customers.loading.validation import ColumnCheck
from customers.privacy import tombstones
from customers.shop.settings import Shop
from customers.shop.timestamps import from_micros, to_micros

CHANNELS = ("store", "web", "app", "phone", "marketplace")
COLUMNS = (
    "order_id",
    "line_id",
    "customer_id",
    "product_id",
    "sold_at",
    "quantity",
    "amount",
    "discount",
    "currency",
    "store_id",
    "channel",
    "kind",
    "coupon_id",
    "campaign_id",
)
BATCH_SIZE = 20_000
CLOCK_TOLERANCE = timedelta(hours=24)


def _checks(shop: Shop) -> list[ColumnCheck]:
    return [
        validation.identifier("order_id"),
        validation.reference("line_id"),
        validation.reference("customer_id"),
        validation.identifier("product_id"),
        _sold_at_check(shop),
        validation.number("quantity", required=True),
        validation.currency(shop.currency),
        validation.amount("amount", required=True),
        validation.amount("discount"),
        validation.any_text("store_id"),
        validation.choice("channel", CHANNELS),
        validation.choice("kind", ("sale", "return"), "sale"),
        validation.any_text("coupon_id"),
        validation.any_text("campaign_id"),
    ]


def _sold_at_check(shop: Shop) -> ColumnCheck:
    check = validation.instant("sold_at", shop.timezone, required=True)
    # The real clock, also in a shop with a fixed clock: a sale in the real future is always an error.
    latest = to_micros(datetime.now(UTC) + CLOCK_TOLERANCE)
    too_late = (f"{check.value} > {latest}", "sold_at is in the future")
    too_early = (f"{check.value} < 0", "sold_at is before 1970")
    return replace(check, rejections=(*check.rejections, too_late, too_early))


def _load(shop: Shop, source: str, records: Records, open_transaction: TransactionFactory) -> RowCounts:
    customers = records.connection.sql(
        "select distinct customer_id from checked where reason is null and customer_id is not null order by 1"
    ).to_arrow_table()
    products = records.connection.sql(
        "select distinct product_id from checked where reason is null order by 1"
    ).to_arrow_table()
    with open_transaction() as connection:
        last_erasure_id = tombstones.latest_erasure_id(connection)
    customer_keys = load_customers.get_or_create_customers(
        shop, open_transaction, source, customers.column(0).to_pylist()
    )
    product_keys, stubs = load_products.get_or_create_products(open_transaction, source, products.column(0).to_pylist())
    _create_lines(records, source, _key_table("customer", customer_keys), _key_table("product", product_keys))
    counts = RowCounts(stubs=stubs)
    sold_until = records.connection.execute("select max(sold_at) from lines").fetchall()[0][0]
    with tqdm(total=records.count("lines"), unit=" lines", disable=None, leave=False) as bar:
        for lines in _order_batches(records):
            with open_transaction() as connection:
                # Read for each batch: a nightly run may begin during a long load.
                arrived_at = to_micros(clock.arrival_time(shop, sold_until=from_micros(sold_until)))
                erased_keys = tombstones.keys_erased_since(connection, last_erasure_id)
                counts += transactions.upsert_lines(
                    connection,
                    source,
                    line_digest.anonymise_lines(lines, erased_keys),
                    arrived_at,
                    changed_customers=records.changed_customers,
                )
            bar.update(len(lines))
    return counts


def _key_table(entity: str, keys: dict[str, int]) -> pa.Table:
    ids = pa.array(keys.keys(), pa.string())
    return pa.table({f"{entity}_id": ids, f"{entity}_key": pa.array(keys.values(), pa.int64())})


def _create_lines(records: Records, source: str, customers: pa.Table, products: pa.Table) -> None:
    """Create table `lines` as the ledger stores them, a row per line; `customers` and `products` map id to key.

    A return has a negative quantity and amount. A line without an id is numbered within its product and order.
    `sweep` is which stored lines of the order to remove: 2 all that are not in this load (it has the whole order),
    1 only lines numbered by us (from now on the order's lines have ids), 0 none (some line was rejected).
    """
    records.connection.register("customer_key_table", customers)
    records.connection.register("product_key_table", products)
    # An unreadable line may belong to any order: then no order is certain to be complete.
    has_unreadable = "true" if records.count("broken") else "false"
    # An id without a key is that of an erased customer: the line is stored without a customer.
    records.connection.execute(
        f"""
        create temp table digested as
          select *, {line_digest.CONTENT_DIGEST} as content from (
            select * exclude (kind, quantity, amount_minor, reason, is_repeat, customer_id),
                   case when customer_key is not null then customer_id end as customer_id,
                   case when returned then 'return' else 'sale' end as kind,
                   case when returned then -abs(quantity) else quantity end as quantity,
                   case when returned then -abs(amount_minor) else amount_minor end as amount_minor
            from (select *, kind = 'return' or quantity < 0 or amount_minor < 0 as returned
                  from checked left join customer_key_table using (customer_id)
                  where reason is null and not is_repeat));
        create temp table orders as
          select order_id, (md5_number_lower({quote_literal(source)} || chr(31) || order_id) >> 1)::bigint as order_key,
                 {has_unreadable} or order_id in (
                   select {_trimmed_order_id()} from raw join checked c using (file_no, row_no)
                   where c.reason is not null) as broken
          from (select distinct order_id from digested);
        """
    )
    line_number, is_complete = _window_expressions(records)
    records.connection.execute(
        f"""
        create temp table lines as
          select order_id, coalesce(line_id, '~' || product_id || '~' || {line_number}) as line_id, product_id,
                 order_key, customer_key, product_key, sold_at, quantity, amount_minor, discount_minor, currency, kind,
                 store_id, channel, coupon_id, campaign_id, line_id is null as numbered, content,
                 case when broken then 0 when {is_complete} then 2 else 1 end as sweep
          from digested
          join orders using (order_id)
          join product_key_table using (product_id)
        """
    )


def _window_expressions(records: Records) -> tuple[str, str]:
    """SQL to number lines without ids and to recognise a complete order; without window functions where possible."""
    rows, with_id, pairs = records.connection.execute(
        "select count(*), count(line_id), count(distinct hash(order_id, product_id)) from digested"
    ).fetchall()[0]
    line_number = "row_number() over (partition by order_id, product_id, line_id is null order by content)"
    is_complete = "bool_or(line_id is null) over (partition by order_id)"
    if with_id == rows:
        return "1", "false"
    return ("1" if pairs == rows else line_number), ("true" if with_id == 0 else is_complete)


def _trimmed_order_id() -> str:
    return validation.trimmed("order_id").replace('"order_id"', 'raw."order_id"')


def _order_batches(records: Records) -> Iterator[pa.Table]:
    """The lines in batches of about BATCH_SIZE, split only between orders."""
    reader = records.connection.sql("select * from lines order by order_id, line_id").to_arrow_reader(BATCH_SIZE)
    pending: list[pa.RecordBatch] = []
    for batch in reader:
        split_at = _last_order_start(batch, pending)
        if split_at is None:
            pending.append(batch)
            continue
        yield pa.Table.from_batches([*pending, batch.slice(0, split_at)])
        pending = [batch.slice(split_at)]
    if pending:
        yield pa.Table.from_batches(pending)


def _last_order_start(batch: pa.RecordBatch, pending: list[pa.RecordBatch]) -> int | None:
    """The row at which the last order of this batch begins; None where no order before it is complete."""
    orders = batch.column("order_id")
    start = pc.index(orders, orders[-1]).as_py()
    if start:
        return int(start)
    return 0 if pending and pending[-1].column("order_id")[-1] != orders[-1] else None


RECORD_KIND = RecordKind(
    name="transactions",
    required=("order_id", "product_id", "sold_at", "quantity", "amount"),
    columns=COLUMNS,
    key=("order_id", "line_id"),
    clear_text_columns=COLUMNS,
    checks=_checks,
    load=_load,
)
