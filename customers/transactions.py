"""Transactions: what was bought and returned, an append-only ledger with every version of every line.

`transactions` holds what is believed now, `transactions_history` what was believed before, each with
the time it was known, so that a replay of an old day sees what was known that day.
"""

from datetime import datetime

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from customers import database, nights
from customers.instants import maybe
from customers.kinds import Counts
from customers.schema import transactions
from customers.shop import Shop

LINE = [column.name for column in transactions.columns]

_passing = sa.MetaData()
staged_lines = sa.Table(
    "staged_lines",
    _passing,
    sa.Column("order_id", sa.Text, primary_key=True),
    sa.Column("line_id", sa.Text, primary_key=True),
    sa.Column("row_no", sa.Integer, nullable=False),
    sa.Column("content", sa.BigInteger, nullable=False),
    sa.Column("sweep", sa.Integer, nullable=False),
    prefixes=["TEMPORARY"],
)
leaving_lines = sa.Table(
    "leaving_lines",
    _passing,
    sa.Column("order_id", sa.Text, primary_key=True),
    sa.Column("line_id", sa.Text, primary_key=True),
    prefixes=["TEMPORARY"],
)

NEW_OR_CHANGED = sa.text(
    """select s.row_no, t.content is not null as changed
       from staged_lines s left join transactions t
         on t.source = :source and t.order_id = s.order_id and t.line_id = s.line_id
       where t.content is null or t.content <> s.content"""
)
# `cross join` keeps SQLite from walking the whole ledger to find the few lines of a slice.
SEEN_BEFORE = sa.text(
    """select distinct s.row_no from staged_lines s cross join transactions_history h
       where h.order_id = s.order_id and h.line_id = s.line_id and h.source = :source"""
)
LEAVING_CHANGED = sa.text(
    """insert into leaving_lines
       select s.order_id, s.line_id from staged_lines s cross join transactions t
       where t.source = :source and t.order_id = s.order_id and t.line_id = s.line_id
         and t.content <> s.content"""
)
LEAVING_SWEPT = sa.text(
    """insert into leaving_lines
       select t.order_id, t.line_id
       from (select order_id, max(sweep) as sweep from staged_lines group by order_id) o
       cross join transactions t
       left join staged_lines s on s.order_id = t.order_id and s.line_id = t.line_id
       where t.source = :source and t.order_id = o.order_id
         and s.order_id is null and (o.sweep = 2 or (o.sweep = 1 and t.numbered))"""
)
_leaving = "source = :source and (order_id, line_id) in (select order_id, line_id from leaving_lines)"
SOLD_AT_OF_LEAVING = sa.text(f"select distinct sold_at from transactions where {_leaving}")
TO_HISTORY = sa.text(
    f"""insert into transactions_history ({", ".join(LINE)}, superseded_at)
        select {", ".join(LINE)}, :arrived from transactions where {_leaving}"""
)
TAKE_OUT = sa.text(f"delete from transactions where {_leaving}")
MARK = sa.text(
    """insert into ledger_months (month, changed_no, mirrored_no) values (:month, 1, 0)
       on conflict (month) do update set changed_no = ledger_months.changed_no + 1"""
)


def keep(connection: sa.Connection, source: str, lines: pa.Table, arrived: int) -> Counts:
    """Keep a slice of whole orders in one transaction; unchanged lines cost a look-up and nothing else.

    A new line was known when it was sold, unless a night has already looked past that moment: then it is
    known on arrival. So is a changed line, and one that had left and comes again.
    """
    _stage(connection, lines)
    found = connection.execute(NEW_OR_CHANGED, {"source": source}).all()
    changed = {row_no for row_no, is_changed in found if is_changed}
    left, months = _supersede(connection, source, arrived, any_changed=bool(changed))
    rows = np.sort(np.fromiter((row_no for row_no, _ in found), np.int64, len(found)))
    if len(rows):
        late = changed | set(connection.execute(SEEN_BEFORE, {"source": source}).scalars())
        chosen = lines if len(rows) == len(lines) else lines.take(pa.array(rows))
        known_at = _known_at(connection, chosen, rows, late, arrived)
        _insert(connection, source, chosen, known_at)
        months |= _months(chosen.column("sold_at").to_numpy())
    mark(connection, months)
    return Counts(
        inserted=len(rows) - len(changed),
        updated=len(changed),
        unchanged=len(lines) - len(rows),
        removed=left - len(changed),
    )


def last_sold_at(shop: Shop) -> datetime | None:
    """When the last line of the ledger was sold; None in a shop that has sold nothing."""
    with database.reading(shop) as connection:
        return maybe(connection.execute(sa.select(sa.func.max(transactions.c.sold_at))).scalar())


def mark(connection: sa.Connection, months: set[str]) -> None:
    """Note in the writer's own transaction which months of the mirror are no longer true."""
    if months:
        connection.execute(MARK, [{"month": month} for month in sorted(months)])


def _stage(connection: sa.Connection, lines: pa.Table) -> None:
    for table in (staged_lines, leaving_lines):
        connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
        connection.execute(table.delete())
    rows = zip(
        lines.column("order_id").to_pylist(),
        lines.column("line_id").to_pylist(),
        range(len(lines)),
        lines.column("content").to_pylist(),
        lines.column("sweep").to_pylist(),
        strict=True,
    )
    database.insert_many(connection, staged_lines, [column.name for column in staged_lines.columns], rows)


def _supersede(
    connection: sa.Connection, source: str, arrived: int, *, any_changed: bool
) -> tuple[int, set[str]]:
    """Move what the slice replaces to the history; how many lines, and the months they were sold in."""
    if any_changed:
        connection.execute(LEAVING_CHANGED, {"source": source})
    connection.execute(LEAVING_SWEPT, {"source": source})
    left = connection.execute(sa.select(sa.func.count()).select_from(leaving_lines)).scalar_one()
    if not left:
        return 0, set()
    sold = connection.execute(SOLD_AT_OF_LEAVING, {"source": source}).scalars().all()
    connection.execute(TO_HISTORY, {"source": source, "arrived": arrived})
    connection.execute(TAKE_OUT, {"source": source})
    return left, _months(np.array(sold))


def _known_at(
    connection: sa.Connection, chosen: pa.Table, rows: np.ndarray, late: set[int], arrived: int
) -> np.ndarray:
    sold_at = chosen.column("sold_at").to_numpy()
    looked = nights.last_looked_micros(connection)
    on_arrival = np.isin(rows, list(late)) if late else np.zeros(len(rows), bool)
    if looked is not None:
        on_arrival |= sold_at < looked
    return np.where(on_arrival, arrived, sold_at)


def _insert(connection: sa.Connection, source: str, chosen: pa.Table, known_at: np.ndarray) -> None:
    names = [name for name in LINE if name not in ("source", "known_at")]
    columns = [chosen.column(name).to_pylist() for name in names]
    rows = zip([source] * len(chosen), known_at.tolist(), *columns, strict=True)
    database.insert_many(connection, transactions, ["source", "known_at", *names], rows)


def _months(sold_at: np.ndarray) -> set[str]:
    """The UTC months of these instants, as 2017-11."""
    return {str(month) for month in np.unique(sold_at.astype("datetime64[us]").astype("datetime64[M]"))}


def month_bounds(month: str) -> tuple[int, int]:
    """The first microsecond of a UTC month, and the first after it."""
    begins = np.datetime64(month, "M")
    first, after = (int(at.astype("datetime64[us]").astype(np.int64)) for at in (begins, begins + 1))
    return first, after


