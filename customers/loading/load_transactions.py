"""Loads record kind `transactions`: order lines, grouped into whole orders and written to the ledger in batches."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from customers import clock
from customers.database.writes import RowCounts, TransactionFactory
from customers.ledger import line_digest, transactions
from customers.loading import load_customers, load_products, validation
from customers.loading.connectors.files import Records
from customers.loading.record_kind import RecordKind
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
BATCH_SIZE = 50_000
IS_ACCEPTED = "reason is null and not is_repeat"
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
    records.connection.register("customer_key_table", _key_table("customer", customer_keys))
    records.connection.register("product_key_table", _key_table("product", product_keys))
    counts = RowCounts(stubs=stubs)
    total, sold_until = records.connection.execute(
        f"select count(*), max(sold_at) from checked where {IS_ACCEPTED}"
    ).fetchall()[0]
    with tqdm(total=total, unit=" lines", disable=None, leave=False) as bar:
        for orders in _order_batches(records):
            lines = _as_stored(orders, source)
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


def _order_batches(records: Records) -> Iterator[pa.Table]:
    """The accepted lines in batches of about BATCH_SIZE, split only between orders.

    Columns order_id, line_id (null where the file has none), product_id, customer_key, product_key, sold_at, quantity,
    amount_minor, discount_minor, currency, kind, store_id, channel, coupon_id, campaign_id, content and is_broken: some
    line of the order was rejected. A return has a negative quantity and amount. Sorted by order.
    """
    reader = records.connection.sql(_lines_query(records)).to_arrow_reader(BATCH_SIZE)
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


def _lines_query(records: Records) -> str:
    """The query of the accepted lines; nothing but the sort holds more than a few rows, and DuckDB sorts on disk."""
    # An unreadable line may belong to any order: then no order is certain to be complete.
    if records.count("broken"):
        is_broken = "true"
    elif records.count("checked", "reason is not null"):
        is_broken = "order_id in (select order_id from checked where reason is not null and order_id is not null)"
    else:
        is_broken = "false"
    # An id without a key is that of an erased customer: the line is stored without a customer.
    return f"""
        select order_id, line_id, product_id, customer_key, product_key, sold_at, quantity, amount_minor,
               discount_minor, currency, kind, store_id, channel, coupon_id, campaign_id,
               {line_digest.CONTENT_DIGEST} as content, {is_broken} as is_broken
        from (
          select order_id, line_id, product_id, customer_key, product_key, sold_at, discount_minor, currency, store_id,
                 channel, coupon_id, campaign_id,
                 case when customer_key is not null then customer_id end as customer_id,
                 case when is_return then 'return' else 'sale' end as kind,
                 case when is_return then -abs(quantity) else quantity end as quantity,
                 case when is_return then -abs(amount_minor) else amount_minor end as amount_minor
          from (select *, kind = 'return' or quantity < 0 or amount_minor < 0 as is_return
                from checked where {IS_ACCEPTED})
          left join customer_key_table using (customer_id)
          join product_key_table using (product_id))
        order by order_id"""


def _as_stored(lines: pa.Table, source: str) -> pa.Table:
    """The lines of whole orders with the columns of the ledger: also order_key, numbered and `sweep`.

    `lines` has the columns of `_order_batches`. A line without an id is numbered within its product and order. `sweep`
    is which stored lines of the order to remove: 2 all that are not in this load (it has the whole order), 1 only lines
    numbered by us (from now on the order's lines have ids), 0 none (some line was rejected).
    """
    lines = lines.combine_chunks()
    orders = lines.column("order_id").combine_chunks()
    is_first = np.append(True, pc.not_equal(orders[1:], orders[:-1]).to_numpy(zero_copy_only=False))
    order_starts, order_numbers = np.flatnonzero(is_first), np.cumsum(is_first) - 1
    order_keys = line_digest.order_keys(source, orders.take(pa.array(order_starts)).to_pylist())
    is_numbered = pc.is_null(lines.column("line_id"))
    numbered = is_numbered.to_numpy()
    has_numbered = np.logical_or.reduceat(numbered, order_starts)[order_numbers]
    sweep = np.where(lines.column("is_broken").to_numpy(), 0, np.where(has_numbered, 2, 1))
    line_ids = lines.column("line_id") if not numbered.any() else _line_ids(lines, numbered, order_numbers)
    return (
        lines.drop_columns(["is_broken", "line_id"])
        .append_column("line_id", line_ids)
        .append_column("order_key", pa.array(order_keys[order_numbers]))
        .append_column("numbered", is_numbered)
        .append_column("sweep", pa.array(sweep))
    )


def _line_ids(lines: pa.Table, numbered: np.ndarray, order_numbers: np.ndarray) -> pa.ChunkedArray:
    """The line ids, where missing ~PRODUCT~N: N counts the lines of a product in its order, by content.

    numbered: (n,) whether the id is missing; order_numbers: (n,) rises with every order.
    """
    rows = np.flatnonzero(numbered)
    orders, keys = order_numbers[rows], lines.column("product_key").to_numpy()[rows]
    by_content = np.lexsort((lines.column("content").to_numpy()[rows], keys, orders))
    orders, keys = orders[by_content], keys[by_content]
    is_first = np.append(True, (orders[1:] != orders[:-1]) | (keys[1:] != keys[:-1]))
    counts = np.arange(len(rows)) - np.maximum.accumulate(np.where(is_first, np.arange(len(rows)), 0)) + 1
    numbers = np.ones(len(lines), np.int64)
    numbers[rows[by_content]] = counts
    texts = pc.binary_join_element_wise("", lines.column("product_id"), pa.array(numbers).cast(pa.string()), "~")
    return pc.coalesce(lines.column("line_id"), texts)


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
    may_use_disk=True,
)
