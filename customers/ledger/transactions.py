"""Transactions: what was bought and returned, an append-only ledger with every version of every line.

`transactions` holds what is believed now, `transactions_history` what was believed before, each with
the time it was known, so that a replay of an old day sees what was known that day.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from customers import database, freshness, nights
from customers.instants import maybe
from customers.kinds import Counts
from customers.schema import ledger_months, transactions, transactions_history
from customers.shop import Shop

SLICE = 20_000
LINE = [column.name for column in transactions.columns]
MARK = sa.text(
    """insert into ledger_months (month, changed_no, mirrored_no) values (:month, 1, 0)
       on conflict (month) do update set changed_no = ledger_months.changed_no + 1"""
)
_the_line = "where source = :source and order_id = :order_id and line_id = :line_id"
TO_HISTORY = sa.text(
    f"""insert into transactions_history ({", ".join(LINE)}, superseded_at)
        select {", ".join(LINE)}, :arrived from transactions {_the_line}"""
)
WHEN_AND_WHOSE = sa.text(f"select sold_at, customer_key from transactions {_the_line}")
TAKE_OUT = sa.text(f"delete from transactions {_the_line}")

# A line within its source: order_id and line_id.
LineId = tuple[str, str]


def keep(
    connection: sa.Connection, source: str, lines: pa.Table, arrived: int, *, touched: set[int] | None = None
) -> Counts:
    """Keep a slice of whole orders in one transaction; unchanged lines cost a look-up and nothing else.

    A new line was known when it was sold, unless a night has already looked past that moment: then it is
    known on arrival. So is a changed line, and one that had left and comes again.
    Where `touched` is given, whose lines changed joins it, and is noted to have features that lag behind.
    """
    orders = pc.unique(lines.column("order_id")).to_pylist()
    kept = _kept(connection, source, orders)
    line_ids = list(zip(lines.column("order_id").to_pylist(), lines.column("line_id").to_pylist(), strict=True))
    rows, changed = _new_or_changed(line_ids, lines.column("content").to_pylist(), kept)
    # As many lines kept as found again: none is gone, and the sets need not be built.
    found_again = len(lines) - len(rows) + len(changed)
    gone = kept.keys() - set(line_ids) if len(kept) > found_again else set()
    swept = _swept(connection, source, gone, lines) if gone else set()
    months, whose = _supersede(connection, source, changed | swept, arrived)
    if rows:
        late = changed | _seen_before(connection, source, orders)
        chosen = lines if len(rows) == len(lines) else lines.take(pa.array(rows))
        again = [line_ids[row] in late for row in rows] if late else [False] * len(rows)
        _insert(connection, source, chosen, _known_at(connection, chosen, again, arrived))
        months |= months_of(chosen.column("sold_at").to_numpy())
        whose |= set(pc.unique(chosen.column("customer_key")).to_pylist())
    mark(connection, months)
    if touched is not None:
        freshness.fall_behind(connection, whose - {None})
        touched |= whose - {None}
    return Counts(
        inserted=len(rows) - len(changed),
        updated=len(changed),
        unchanged=len(lines) - len(rows),
        removed=len(swept),
    )


def last_sold_at(shop: Shop) -> datetime | None:
    """When the last line of the ledger was sold; None in a shop that has sold nothing."""
    with database.reading(shop) as connection:
        return maybe(connection.execute(sa.select(sa.func.max(transactions.c.sold_at))).scalar())


def mark(connection: sa.Connection, months: set[str]) -> None:
    """Note in the writer's own transaction which months of the mirror are no longer true."""
    if months:
        connection.execute(MARK, [{"month": month} for month in sorted(months)])


def months(shop: Shop) -> dict[str, int]:
    """The UTC months of the ledger, each with a number that rises whenever one of its lines changes."""
    marks = sa.select(ledger_months.c.month, ledger_months.c.changed_no).where(ledger_months.c.month.like("____-__"))
    with database.reading(shop) as connection:
        return dict(connection.execute(marks).tuples().all())


def sold_in(shop: Shop, product_keys: Iterable[int], month: str) -> set[int]:
    """Those of these products of which there is a line in a UTC month."""
    begins, after = month_bounds(month)
    lines = transactions.c
    query = sa.select(lines.product_key).distinct().where(lines.sold_at >= begins, lines.sold_at < after)
    found: set[int] = set()
    with database.reading(shop) as connection:
        for chunk in database.chunks(sorted(product_keys), 5_000):
            found.update(connection.execute(query.where(lines.product_key.in_(chunk))).scalars())
    return found


def month_bounds(month: str) -> tuple[int, int]:
    """The first microsecond of a UTC month, and the first after it."""
    begins = np.datetime64(month, "M")
    first, after = (int(at.astype("datetime64[us]").astype(np.int64)) for at in (begins, begins + 1))
    return first, after


def months_of(sold_at: np.ndarray) -> set[str]:
    """The UTC months of these instants, as 2017-11."""
    return {str(month) for month in np.unique(sold_at.astype("datetime64[us]").astype("datetime64[M]"))}


def _kept(connection: sa.Connection, source: str, orders: Sequence[str]) -> dict[LineId, int]:
    """The lines of these orders that the ledger holds, with the digest of what each says."""
    columns = transactions.c
    query = sa.select(columns.order_id, columns.line_id, columns.content).where(columns.source == source)
    found: dict[LineId, int] = {}
    for chunk in database.chunks(orders, 10_000):
        for rows in database.fetched(connection, query.where(columns.order_id.in_(chunk)), SLICE):
            found.update({(order_id, line_id): content for order_id, line_id, content in rows})
    return found


def _new_or_changed(
    line_ids: Sequence[LineId], contents: Sequence[int], kept: dict[LineId, int]
) -> tuple[list[int], set[LineId]]:
    """The rows to write, and which of their lines replace another version."""
    if not kept:
        return list(range(len(line_ids))), set()
    before = [kept.get(line_id) for line_id in line_ids]
    if before == contents:
        return [], set()
    rows = [row for row, (was, now) in enumerate(zip(before, contents, strict=True)) if was != now]
    return rows, {line_ids[row] for row in rows if before[row] is not None}


def _swept(connection: sa.Connection, source: str, gone: set[LineId], lines: pa.Table) -> set[LineId]:
    """Of the lines that are no longer in their order, those that leave the ledger (`sweep`, see `orders`)."""
    sweep = dict(zip(lines.column("order_id").to_pylist(), lines.column("sweep").to_pylist(), strict=True))
    doubtful = [line_id for line_id in gone if sweep[line_id[0]] == 1]
    columns = transactions.c
    ours = sa.select(columns.order_id, columns.line_id).where(columns.source == source, columns.numbered)
    numbered: set[LineId] = set()
    for chunk in database.chunks(sorted({order_id for order_id, _ in doubtful}), 10_000):
        numbered.update(connection.execute(ours.where(columns.order_id.in_(chunk))).tuples().all())
    return {line_id for line_id in gone if sweep[line_id[0]] == 2} | (numbered & set(doubtful))


def _supersede(connection: sa.Connection, source: str, leaving: set[LineId], arrived: int) -> tuple[set[str], set[int]]:
    """Move lines to the history; the months they were sold in, and whose they were."""
    if not leaving:
        return set(), set()
    keys = [{"source": source, "order_id": order_id, "line_id": line_id} for order_id, line_id in sorted(leaving)]
    sold, whose = zip(*(connection.execute(WHEN_AND_WHOSE, key).one() for key in keys), strict=True)
    connection.execute(TO_HISTORY, [key | {"arrived": arrived} for key in keys])
    connection.execute(TAKE_OUT, keys)
    return months_of(np.array(sold, np.int64)), set(whose)


def _seen_before(connection: sa.Connection, source: str, orders: Sequence[str]) -> set[LineId]:
    columns = transactions_history.c
    if connection.execute(sa.select(columns.version_id).limit(1)).first() is None:
        return set()
    query = sa.select(columns.order_id, columns.line_id).where(columns.source == source)
    found: set[LineId] = set()
    for chunk in database.chunks(orders, 10_000):
        found.update(connection.execute(query.where(columns.order_id.in_(chunk))).tuples().all())
    return found


def _known_at(connection: sa.Connection, chosen: pa.Table, again: list[bool], arrived: int) -> np.ndarray:
    sold_at = chosen.column("sold_at").to_numpy()
    looked = nights.last_looked_micros(connection)
    on_arrival = np.array(again, bool)
    if looked is not None:
        on_arrival |= sold_at < looked
    return np.where(on_arrival, arrived, sold_at)


def _insert(connection: sa.Connection, source: str, chosen: pa.Table, known_at: np.ndarray) -> None:
    names = [name for name in LINE if name not in ("source", "known_at")]
    columns = [chosen.column(name).to_pylist() for name in names]
    rows = zip([source] * len(chosen), known_at.tolist(), *columns, strict=True)
    database.insert_many(connection, transactions, ["source", "known_at", *names], rows)
