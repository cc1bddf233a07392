"""Mirror: a copy of the ledger in columns, a file a month, for everything that computes.

HOME/ledger/month=YYYY-MM/part.parquet holds the lines sold in that UTC month, every version of them;
products.parquet beside them the catalogue, interactions.parquet who was reached and answered, and
consents.parquet what of everybody may be computed. It can be deleted and made again at any time.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from customers import catalogue, columns, consent, database, enrolment
from customers import interactions as contacts
from customers.columns import CONSENTS, INTERACTIONS, LINES, PRODUCTS
from customers.schema import interactions, ledger_months
from customers.shop import Shop
from customers.transactions import month_bounds

DEFAULT = b"consent_default"
MANY = 5_000


def refresh(shop: Shop, *, only: Collection[str] | None = None) -> list[str]:
    """Rewrite the months that changed since the last time, and the other tables; returns what was rewritten.

    With `only`, nothing but the tables and months of these names.
    """
    with database.reading(shop) as connection:
        marks = connection.execute(sa.select(ledger_months).order_by(ledger_months.c.month)).all()
    # The one mark of something that has no copy here is that of the offers.
    numbers = {mark.month: mark.changed_no for mark in marks if mark.month in TABLES or mark.month[:1].isdigit()}
    numbers = dict.fromkeys(TABLES, 0) | numbers
    settled = set(numbers) - {mark.month for mark in marks if mark.changed_no != mark.mirrored_no}
    stale = [name for name in sorted(numbers) if name not in settled or not _stands(shop, name)]
    stale = [name for name in stale if only is None or name in only]
    for name in stale:
        _rewrite(shop, name)
        _settle(shop, name, numbers[name])
    return stale


def changes(shop: Shop) -> int:
    """A number that rises whenever anything changes that the mirror or the book of offers shows."""
    with database.reading(shop) as connection:
        return int(connection.execute(sa.select(sa.func.sum(ledger_months.c.changed_no))).scalar() or 0)


def rebuild(shop: Shop) -> list[str]:
    """Make the whole mirror again from the database; the content is the same as after refreshes."""
    for path in (shop.home / "ledger").glob("month=*/part.parquet"):
        path.unlink()
    with database.writing(shop) as connection:
        connection.execute(ledger_months.update().values(mirrored_no=0))
    return refresh(shop)


def lines_of(shop: Shop, keys: Iterable[int]) -> pa.Table:
    """All versions of all lines of these customers, as the mirror has them, straight from the database."""
    with database.reading(shop) as connection:
        batches = [
            batch
            for chunk in database.chunks(keys, MANY)
            for batch in columns.lines(connection, shop.currency, _whose(chunk))
        ]
    return pa.Table.from_batches(batches, schema=LINES)


def interactions_of(shop: Shop, keys: Iterable[int]) -> pa.Table:
    """All interactions of these customers, as the mirror has them, straight from the database."""
    with database.reading(shop) as connection:
        batches = [
            batch
            for chunk in database.chunks(keys, MANY)
            for batch in columns.contacts_with(connection, _whose(chunk)(interactions))
        ]
    return pa.Table.from_batches(batches, schema=INTERACTIONS)


def _whose(keys: list[int]) -> columns.Choice:
    return lambda table: table.c.customer_key.in_(keys)


def _sold_in(month: str) -> columns.Choice:
    first, after = month_bounds(month)
    return lambda table: (table.c.sold_at >= first) & (table.c.sold_at < after)


def _path(shop: Shop, name: str) -> Path:
    folder = shop.home / "ledger"
    return folder / f"{name}.parquet" if name in TABLES else folder / f"month={name}" / "part.parquet"


def _stands(shop: Shop, name: str) -> bool:
    """Whether the file is there, of today's columns and, where it depends on the shop's settings, under today's."""
    path = _path(shop, name)
    if name not in TABLES or not path.exists():
        return path.exists()
    written = pq.read_schema(path)
    current = name != enrolment.MIRROR_MARK or dict(written.metadata or {}).get(DEFAULT) == _default(shop)
    return current and written.names == TABLES[name][0].names


def _rewrite(shop: Shop, name: str) -> None:
    path = _path(shop, name)
    with database.reading(shop) as connection:
        if name in TABLES:
            schema, rows = TABLES[name]
            if name == enrolment.MIRROR_MARK:
                schema = schema.with_metadata({DEFAULT: _default(shop)})
            return _write(path, schema, rows(connection, shop))
        batches = columns.lines(connection, shop.currency, _sold_in(name))
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


def _default(shop: Shop) -> bytes:
    return json.dumps({purpose: shop.consent_default[purpose] for purpose in consent.PROFILING}).encode()


# The tables beside the months, by their marks: what each looks like, and where its rows come from.
TABLES: dict[str, tuple[pa.Schema, Callable[[sa.Connection, Shop], Iterator[pa.RecordBatch]]]] = {
    catalogue.MIRROR_MARK: (PRODUCTS, columns.catalogued),
    contacts.MIRROR_MARK: (INTERACTIONS, columns.reached),
    enrolment.MIRROR_MARK: (CONSENTS, columns.consents),
}
