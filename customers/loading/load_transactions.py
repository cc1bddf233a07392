"""Orders: the lines of a load, shaped into whole orders and handed to the ledger a slice at a time."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from customers import catalogue, checks, clock, enrolment, tombstones, transactions
from customers.checks import Check
from customers.instants import from_micros, micros
from customers.kinds import Counts, Kind, Writer
from customers.shop import Shop
from customers.sources.files import Records, literal

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
# All that a line says; a digest of it tells whether the line has changed.
SAID = (
    "product_id",
    "customer_id",
    "sold_at",
    "quantity",
    "amount_minor",
    "discount_minor",
    "currency",
    "kind",
    "store_id",
    "channel",
    "coupon_id",
    "campaign_id",
)
# `concat` takes null for nothing, and no value is an empty text, so no two lines are written alike.
_said = ", chr(31), ".join(SAID).replace("quantity", "(quantity * 1000000)::bigint")
DIGEST = f"(md5_number_lower(concat({_said})) >> 1)::bigint"
SLICE = 20_000
AHEAD = timedelta(hours=24)


def _checks(shop: Shop) -> list[Check]:
    return [
        checks.identifier("order_id"),
        checks.reference("line_id"),
        checks.reference("customer_id"),
        checks.identifier("product_id"),
        _sold_at(shop),
        checks.number("quantity", required=True),
        checks.currency(shop.currency),
        checks.amount("amount", required=True),
        checks.amount("discount"),
        checks.words("store_id"),
        checks.choice("channel", CHANNELS),
        checks.choice("kind", ("sale", "return"), "sale"),
        checks.words("coupon_id"),
        checks.words("campaign_id"),
    ]


def _sold_at(shop: Shop) -> Check:
    check = checks.instant("sold_at", shop.timezone, required=True)
    # The real clock, also in a shop whose own clock is pinned: a till that runs ahead is wrong everywhere.
    latest = micros(datetime.now(UTC) + AHEAD)
    ahead = (f"{check.value} > {latest}", "sold_at is in the future")
    ancient = (f"{check.value} < 0", "sold_at is before 1970")
    return replace(check, wrong=(*check.wrong, ahead, ancient))


def _keep(shop: Shop, source: str, records: Records, write: Writer) -> Counts:
    customers = records.connection.sql(
        "select distinct customer_id from checked where reason is null and customer_id is not null order by 1"
    ).to_arrow_table()
    products = records.connection.sql(
        "select distinct product_id from checked where reason is null order by 1"
    ).to_arrow_table()
    with write() as connection:
        looked = tombstones.newest(connection)
    enrolled = enrolment.enrol(shop, write, source, customers.column(0).to_pylist())
    stocked, stubs = catalogue.stub(write, source, products.column(0).to_pylist())
    _shape(records, source, _table("customer", enrolled), _table("product", stocked))
    counts = Counts(stubs=stubs)
    sold_until = records.connection.execute("select max(sold_at) from lines").fetchall()[0][0]
    with tqdm(total=records.count("lines"), unit=" lines", disable=None, leave=False) as bar:
        for lines in _whole_orders(records):
            with write() as connection:
                # Asked for each slice: a night may begin while a long load goes on.
                arrived = micros(clock.arrival(shop, sold_until=from_micros(sold_until)))
                gone = tombstones.since(connection, looked)
                counts += transactions.keep(connection, source, without(lines, gone), arrived, touched=records.touched)
            bar.update(len(lines))
    return counts


def without(lines: pa.Table, gone: Collection[int]) -> pa.Table:
    """The same lines, those of these customers as nobody's: as a load would keep them that names no customer."""
    theirs = pc.is_in(lines.column("customer_key"), pa.array(gone, pa.int64()))
    if not gone or not pc.any(theirs).as_py():
        return lines
    with duckdb.connect() as connection:
        connection.register("lines", lines.append_column("theirs", theirs))
        return connection.sql(
            f"""select * exclude (theirs, customer_id)
                       replace (case when not theirs then customer_key end as customer_key,
                                case when theirs then {DIGEST} else content end as content)
                from (select *, null::varchar as customer_id from lines)"""
        ).to_arrow_table()


def _table(what: str, keys: dict[str, int]) -> pa.Table:
    ids = pa.array(keys.keys(), pa.string())
    return pa.table({f"{what}_id": ids, f"{what}_key": pa.array(keys.values(), pa.int64())})


def _shape(records: Records, source: str, customers: pa.Table, products: pa.Table) -> None:
    """Lines as the ledger keeps them. A return takes away; a line without an id is its product's nth in the order.

    `sweep` says what else of the order goes: 2 all lines that are not here (the load has the whole order),
    1 only lines numbered by us (from now on the order's lines come with ids), 0 none (some line was turned away).
    """
    records.connection.register("customers_known", customers)
    records.connection.register("products_known", products)
    # Of a line that is none nobody knows whose it was: then no order can be taken for whole.
    unreadable = "true" if records.count("broken") else "false"
    # An id without a key is of somebody who was erased: the line is kept as nobody's.
    records.connection.execute(
        f"""
        create temp table digested as
          select *, {DIGEST} as content from (
            select * exclude (kind, quantity, amount_minor, reason, again, customer_id),
                   case when customer_key is not null then customer_id end as customer_id,
                   case when returned then 'return' else 'sale' end as kind,
                   case when returned then -abs(quantity) else quantity end as quantity,
                   case when returned then -abs(amount_minor) else amount_minor end as amount_minor
            from (select *, kind = 'return' or quantity < 0 or amount_minor < 0 as returned
                  from checked left join customers_known using (customer_id) where reason is null and not again));
        create temp table orders as
          select order_id, (md5_number_lower({literal(source)} || chr(31) || order_id) >> 1)::bigint as order_key,
                 {unreadable} or order_id in (select {_order_id()} from raw join checked c using (file_no, row_no)
                                              where c.reason is not null) as broken
          from (select distinct order_id from digested);
        """
    )
    nth, whole = _windows(records)
    records.connection.execute(
        f"""
        create temp table lines as
          select order_id, coalesce(line_id, '~' || product_id || '~' || {nth}) as line_id, product_id,
                 order_key, customer_key, product_key, sold_at, quantity, amount_minor, discount_minor, currency, kind,
                 store_id, channel, coupon_id, campaign_id, line_id is null as numbered, content,
                 case when broken then 0 when {whole} then 2 else 1 end as sweep
          from digested
          join orders using (order_id)
          join products_known using (product_id)
        """
    )


def _windows(records: Records) -> tuple[str, str]:
    """How to number lines without ids, and how to tell an order that came whole: cheaply, where that is enough."""
    rows, with_id, pairs = records.connection.execute(
        "select count(*), count(line_id), count(distinct hash(order_id, product_id)) from digested"
    ).fetchall()[0]
    nth = "row_number() over (partition by order_id, product_id, line_id is null order by content)"
    whole = "bool_or(line_id is null) over (partition by order_id)"
    if with_id == rows:
        return "1", "false"
    return ("1" if pairs == rows else nth), ("true" if with_id == 0 else whole)


def _order_id() -> str:
    return checks.text("order_id").replace('"order_id"', 'raw."order_id"')


def _whole_orders(records: Records) -> Iterator[pa.Table]:
    """The lines in slices of about SLICE, cut only where the order changes."""
    reader = records.connection.sql("select * from lines order by order_id, line_id").to_arrow_reader(SLICE)
    waiting: list[pa.RecordBatch] = []
    for batch in reader:
        cut = _last_order_begins(batch, waiting)
        if cut is None:
            waiting.append(batch)
            continue
        yield pa.Table.from_batches([*waiting, batch.slice(0, cut)])
        waiting = [batch.slice(cut)]
    if waiting:
        yield pa.Table.from_batches(waiting)


def _last_order_begins(batch: pa.RecordBatch, waiting: list[pa.RecordBatch]) -> int | None:
    """Where the last order of this batch begins; None if nothing before it is complete."""
    orders = batch.column("order_id")
    begins = pc.index(orders, orders[-1]).as_py()
    if begins:
        return int(begins)
    return 0 if waiting and waiting[-1].column("order_id")[-1] != orders[-1] else None


KIND = Kind(
    name="transactions",
    required=("order_id", "product_id", "sold_at", "quantity", "amount"),
    columns=COLUMNS,
    key=("order_id", "line_id"),
    shown=COLUMNS,
    checks=_checks,
    keep=_keep,
)
