"""The append-only ledger of sales and returns, with every version of every order line.

Table `transactions` holds the current versions and `transactions_history` the superseded ones, each with known_at, the
time at which it became known, so that a historical run sees the versions of its own time.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from customers.database import bulk_writes, change_counters, engine
from customers.database.schema import transactions, transactions_history
from customers.database.writes import RowCounts
from customers.ledger import refresh_queue, watermark
from customers.shop.settings import Shop
from customers.shop.timestamps import from_micros_or_none

BATCH_SIZE = 20_000
LINE_COLUMNS = [column.name for column in transactions.columns]
_WHERE_LINE = "where source = :source and order_id = :order_id and line_id = :line_id"
COPY_TO_HISTORY = sa.text(
    f"""insert into transactions_history ({", ".join(LINE_COLUMNS)}, superseded_at)
        select {", ".join(LINE_COLUMNS)}, :arrived from transactions {_WHERE_LINE}"""
)
SELECT_DATE_AND_CUSTOMER = sa.text(f"select sold_at, customer_key from transactions {_WHERE_LINE}")
DELETE_LINE = sa.text(f"delete from transactions {_WHERE_LINE}")

# A line within its source: order_id and line_id.
LineId = tuple[str, str]


def upsert_lines(
    connection: sa.Connection,
    source: str,
    lines: pa.Table,
    arrived_at: int,
    *,
    changed_customers: set[int] | None = None,
) -> RowCounts:
    """Insert, update and remove the lines of a batch of whole orders; an unchanged line costs one look-up.

    `lines` has a row per line, with the columns of `transactions` except source and known_at, plus `sweep` (see
    `customers.loading.load_transactions`). known_at of a new line is sold_at; it is `arrived_at` (microseconds since
    1970) where sold_at is before the watermark of nightly runs, where the line changed, and where it had been removed
    before. Customers with changed lines are added to `changed_customers`, where given, and to the refresh queue.
    """
    orders = pc.unique(lines.column("order_id")).to_pylist()
    existing = _select_contents(connection, source, orders)
    in_history = _lines_in_history(connection, source, orders)
    # The first load of an order compares nothing: no line of it needs to become a Python object.
    line_ids = _line_ids(lines) if existing or in_history else []
    rows, changed = _find_changes(line_ids, lines, existing)
    # As many stored lines as lines matched: none is missing, and the sets need not be built.
    n_matched = len(lines) - len(rows) + len(changed)
    missing = existing.keys() - set(line_ids) if len(existing) > n_matched else set()
    removed = _lines_to_remove(connection, source, missing, lines) if missing else set()
    changed_months, customer_keys = _move_to_history(connection, source, changed | removed, arrived_at)
    if len(rows):
        returning = changed | in_history
        new_lines = lines if len(rows) == len(lines) else lines.take(pa.array(rows))
        is_late = np.array([line_ids[row] in returning for row in rows] if returning else [False] * len(rows))
        _insert_lines(connection, source, new_lines, _recorded_times(connection, new_lines, is_late, arrived_at))
        changed_months |= utc_months(new_lines.column("sold_at").to_numpy())
        if changed_customers is not None:
            customer_keys |= set(pc.unique(new_lines.column("customer_key")).to_pylist())
    loads = {change_counters.LOADS_COUNTER} if changed_months and changed_customers is None else set()
    change_counters.increment_counters(connection, changed_months | loads)
    if changed_customers is not None:
        refresh_queue.enqueue(connection, customer_keys - {None})
        changed_customers |= customer_keys - {None}
    return RowCounts(
        inserted=len(rows) - len(changed),
        updated=len(changed),
        unchanged=len(lines) - len(rows),
        removed=len(removed),
    )


def last_sold_at(shop: Shop) -> datetime | None:
    """sold_at of the latest line in the ledger; None in a shop without sales."""
    with engine.read_transaction(shop) as connection:
        return from_micros_or_none(connection.execute(sa.select(sa.func.max(transactions.c.sold_at))).scalar())


def read_products_sold_in(connection: sa.Connection, product_keys: Iterable[int], month: str) -> set[int]:
    """The products among these that have a line in this UTC month ("2017-11")."""
    start, end = month_bounds(month)
    lines = transactions.c
    query = sa.select(lines.product_key).distinct().where(lines.sold_at >= start, lines.sold_at < end)
    product_set: set[int] = set()
    for chunk in engine.chunks(sorted(product_keys), 5_000):
        product_set.update(connection.execute(query.where(lines.product_key.in_(chunk))).scalars())
    return product_set


def month_bounds(month: str) -> tuple[int, int]:
    """Start and end of a UTC month ("2017-11") in microseconds since 1970; the end is exclusive."""
    start = np.datetime64(month, "M")
    first, after = (int(at.astype("datetime64[us]").astype(np.int64)) for at in (start, start + 1))
    return first, after


def utc_months(sold_at: np.ndarray) -> set[str]:
    """The distinct UTC months, such as "2017-11", of times of shape (n,) in microseconds since 1970."""
    return {str(month) for month in np.unique(sold_at.astype("datetime64[us]").astype("datetime64[M]"))}


def _select_contents(connection: sa.Connection, source: str, orders: Sequence[str]) -> dict[LineId, int]:
    """The lines of these orders in the ledger, each with its content digest."""
    columns = transactions.c
    query = sa.select(columns.order_id, columns.line_id, columns.content).where(columns.source == source)
    contents: dict[LineId, int] = {}
    query = query.where(bulk_writes.matches_any(connection, columns.order_id, orders))
    for rows in engine.fetch_batches(connection, query, BATCH_SIZE):
        contents.update({(order_id, line_id): content for order_id, line_id, content in rows})
    return contents


def _line_ids(lines: pa.Table) -> list[LineId]:
    return list(zip(lines.column("order_id").to_pylist(), lines.column("line_id").to_pylist(), strict=True))


def _find_changes(
    line_ids: Sequence[LineId], lines: pa.Table, existing: dict[LineId, int]
) -> tuple[Sequence[int], set[LineId]]:
    """The indices of the lines to write, and the ids of those that replace an earlier version.

    `lines` has a row per id, and column content.
    """
    if not existing:
        return range(len(lines)), set()
    stored, contents = [existing.get(line_id) for line_id in line_ids], lines.column("content").to_pylist()
    if stored == contents:
        return [], set()
    rows = [row for row, (old, new) in enumerate(zip(stored, contents, strict=True)) if old != new]
    return rows, {line_ids[row] for row in rows if stored[row] is not None}


def _lines_to_remove(connection: sa.Connection, source: str, missing: set[LineId], lines: pa.Table) -> set[LineId]:
    """Of the lines that are no longer in their order, those to remove, by `sweep` (see load_transactions)."""
    sweep = dict(zip(lines.column("order_id").to_pylist(), lines.column("sweep").to_pylist(), strict=True))
    candidates = [line_id for line_id in missing if sweep[line_id[0]] == 1]
    columns = transactions.c
    numbered_query = sa.select(columns.order_id, columns.line_id).where(columns.source == source, columns.numbered)
    numbered: set[LineId] = set()
    for chunk in engine.chunks(sorted({order_id for order_id, _ in candidates}), 10_000):
        numbered.update(connection.execute(numbered_query.where(columns.order_id.in_(chunk))).tuples().all())
    return {line_id for line_id in missing if sweep[line_id[0]] == 2} | (numbered & set(candidates))


def _move_to_history(
    connection: sa.Connection, source: str, leaving: set[LineId], arrived_at: int
) -> tuple[set[str], set[int]]:
    """Move lines to the history; returns the UTC months in which they were sold, and their customer keys."""
    if not leaving:
        return set(), set()
    keys = [{"source": source, "order_id": order_id, "line_id": line_id} for order_id, line_id in sorted(leaving)]
    sold_at, customer_keys = zip(
        *(connection.execute(SELECT_DATE_AND_CUSTOMER, key).one() for key in keys), strict=True
    )
    connection.execute(COPY_TO_HISTORY, [key | {"arrived": arrived_at} for key in keys])
    connection.execute(DELETE_LINE, keys)
    return utc_months(np.array(sold_at, np.int64)), set(customer_keys)


def _lines_in_history(connection: sa.Connection, source: str, orders: Sequence[str]) -> set[LineId]:
    columns = transactions_history.c
    if connection.execute(sa.select(columns.version_id).limit(1)).first() is None:
        return set()
    query = sa.select(columns.order_id, columns.line_id).where(columns.source == source)
    query = query.where(bulk_writes.matches_any(connection, columns.order_id, orders))
    return set(connection.execute(query).tuples().all())


def _recorded_times(connection: sa.Connection, lines: pa.Table, is_late: np.ndarray, arrived_at: int) -> np.ndarray:
    """known_at of each line, shape (n,); is_late: (n,) flags of lines that had another version before."""
    sold_at = lines.column("sold_at").to_numpy()
    watermark_micros = watermark.read_watermark_micros(connection)
    use_arrival = is_late if watermark_micros is None else is_late | (sold_at < watermark_micros)
    return np.where(use_arrival, arrived_at, sold_at)


def _insert_lines(connection: sa.Connection, source: str, lines: pa.Table, recorded_at: np.ndarray) -> None:
    columns = {name: lines.column(name) for name in LINE_COLUMNS if name not in ("source", "known_at")}
    columns["known_at"] = pa.array(recorded_at)
    bulk_writes.insert_columns(connection, transactions, columns, {"source": source})
