"""Anonymity: what was sold to somebody who is forgotten stays in the books, as sold to nobody."""

import csv
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from customers import database, orders, transactions
from customers.schema import ledger_months, products, transactions_history
from customers.schema import transactions as ledger
from customers.shop import Shop

SETTLE = sa.text("update ledger_months set mirrored_no = :number where month = :month and mirrored_no = :number - 1")
_line = ("source", "order_id", "line_id")


def of_ledger(connection: sa.Connection, key: int) -> tuple[int, set[str]]:
    """Make a customer's lines and their earlier versions nobody's; how many, and the months they were sold in.

    The digest of what a line says tells whose it is, to anybody who tries every id on it: it is made anew.
    """
    now, before = _rows(connection, ledger, key), _rows(connection, transactions_history, key)
    _rewrite(connection, ledger, now, _line)
    _rewrite(connection, transactions_history, before, ("version_id",))
    for source, order_id in sorted({(row["source"], row["order_id"]) for row in now if row["numbered"]}):
        _renumber(connection, source, order_id)
    sold_at = np.array([row["sold_at"] for row in now + before], np.int64)
    return len(now) + len(before), transactions.months_of(sold_at)


def of_mirror(shop: Shop, keys: Collection[int], marks: Mapping[str, int] | None = None) -> None:
    """The copies in columns too, at once. Those that were true but for these marks are so again, without a refresh."""
    _rid_mirror(shop, keys)
    if marks:
        with database.writing(shop) as connection:
            connection.execute(SETTLE, [{"month": month, "number": number} for month, number in marks.items()])
        # A refresh slower than all this may have put an old copy back; from now on it would find its mark moved.
        _rid_mirror(shop, keys)


def settled(connection: sa.Connection) -> dict[str, int]:
    """The copies that show what the database holds, and the number of the last change that they show."""
    marks = ledger_months.c
    query = sa.select(marks.month, marks.changed_no).where(marks.changed_no == marks.mirrored_no)
    return dict(connection.execute(query).tuples().all())


def of_rejects(shop: Shop, customer_ids: set[str]) -> None:
    """Rid the files of rows that were turned away of those that name one of these ids."""
    for path in sorted((shop.home / "rejects").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as rejected:
            header, *rows = list(csv.reader(rejected)) or [[]]
        places = [header.index(name) for name in ("customer_id", "referred_by") if name in header]
        others = [row for row in rows if not any(_trimmed(row[place]) in customer_ids for place in places)]
        if len(others) < len(rows):
            _write_rows(path, header, others)


def of_exports(shop: Shop, customer_ids: set[str]) -> None:
    """Rid the tables that the night wrote for other programs of the rows of whoever bears one of these ids."""
    for path in sorted((shop.home / "exports").glob("*")):
        if path.suffix in _OTHERS:
            partial = _beside(path)
            try:
                if _OTHERS[path.suffix](path, partial, customer_ids):
                    shutil.copymode(path, partial)
                    os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)


def _rid_mirror(shop: Shop, keys: Collection[int]) -> None:
    folder = shop.home / "ledger"
    for path in sorted(folder.glob("month=*/part.parquet")):
        _replace(path, keys, keep_rows=True)
    for name in ("interactions", "consents"):
        _replace(folder / f"{name}.parquet", keys, keep_rows=False)


def _rows(connection: sa.Connection, table: sa.Table, key: int) -> list[dict]:
    query = sa.select(table, products.c.product_id).where(table.c.customer_key == key)
    joined = query.join(products, products.c.product_key == table.c.product_key)
    return [dict(row) for row in connection.execute(joined).mappings()]


def _rewrite(connection: sa.Connection, table: sa.Table, rows: list[dict], named: tuple[str, ...]) -> None:
    if not rows:
        return
    lines = pa.Table.from_pylist(rows, schema=_shape(rows[0]))
    contents = orders.without(lines, {rows[0]["customer_key"]}).column("content").to_pylist()
    change = table.update().values(customer_key=None, content=sa.bindparam("anonymous"))
    for name in named:
        change = change.where(table.c[name] == sa.bindparam(f"this_{name}"))
    values = [
        {f"this_{name}": row[name] for name in named} | {"anonymous": content}
        for row, content in zip(rows, contents, strict=True)
    ]
    connection.execute(change, values)


def _shape(row: dict) -> pa.Schema:
    """All columns of the ledger are whole numbers or texts, but one or two: nothing is left to a guess."""
    kinds = {sa.BigInteger: pa.int64(), sa.Integer: pa.int64(), sa.Float: pa.float64(), sa.Boolean: pa.bool_()}
    columns = {**transactions_history.c, **ledger.c}
    return pa.schema([(name, kinds.get(type(columns[name].type), pa.string()) if name in columns else pa.string())
                      for name in row])  # fmt: skip


def _renumber(connection: sa.Connection, source: str, order_id: str) -> None:
    """Lines that came without an id count by their digests, so with new digests some change places."""
    lines = ledger.c
    mine = (lines.source == source) & (lines.order_id == order_id)
    groups: dict[int, list[dict]] = {}
    for row in connection.execute(ledger.select().where(mine, lines.numbered)).mappings():
        groups.setdefault(row["product_key"], []).append(dict(row))
    for rows in groups.values():
        line_ids = sorted((row["line_id"] for row in rows), key=lambda line_id: int(line_id.rsplit("~", 1)[1]))
        ranked = sorted(rows, key=lambda row: row["content"])
        if [row["line_id"] for row in ranked] != line_ids:
            connection.execute(ledger.delete().where(mine, lines.line_id.in_(line_ids)))
            connection.execute(
                ledger.insert(), [row | {"line_id": name} for row, name in zip(ranked, line_ids, strict=True)]
            )


def _replace(path: Path, keys: Collection[int], *, keep_rows: bool) -> None:
    if not path.exists() or not _names(path, keys):
        return
    table = pq.read_table(path, partitioning=None)
    theirs = _theirs(table, keys)
    if keep_rows:
        nobody = pc.if_else(theirs, pa.scalar(None, pa.int64()), table.column("customer_key"))
        table = table.set_column(table.schema.get_field_index("customer_key"), "customer_key", nobody)
    else:
        table = table.filter(pc.invert(theirs))
    partial = _beside(path)
    pq.write_table(table, partial, compression="zstd")
    os.replace(partial, path)


def _names(path: Path, keys: Collection[int]) -> bool:
    table = pq.read_table(path, columns=["customer_key"], partitioning=None)
    return bool(pc.any(_theirs(table, keys)).as_py())


def _theirs(table: pa.Table, keys: Collection[int]) -> pa.ChunkedArray:
    return pc.is_in(table.column("customer_key"), pa.array(list(keys), pa.int64()))


def _write_rows(path: Path, header: list[str], rows: list[list[str]]) -> None:
    """Nothing is left of a file whose rows are all gone."""
    if not rows:
        path.unlink()
        return
    partial = _beside(path)
    partial.touch(mode=0o600)
    with partial.open("w", encoding="utf-8", newline="") as rejected:
        csv.writer(rejected).writerows([header, *rows])
    os.replace(partial, path)


def _others_of_csv(path: Path, to: Path, customer_ids: set[str]) -> bool:
    """Write the rows of others; whether there were any besides."""
    dropped = False
    with path.open(encoding="utf-8", newline="") as exported, to.open("w", encoding="utf-8", newline="") as kept:
        rows, written = csv.reader(exported), csv.writer(kept, lineterminator="\n")
        header = next(rows, [])
        if "customer_id" not in header:
            return False
        place = header.index("customer_id")
        written.writerow(header)
        for row in rows:
            theirs = row[place] in customer_ids
            dropped |= theirs
            if not theirs:
                written.writerow(row)
    return dropped


def _others_of_ndjson(path: Path, to: Path, customer_ids: set[str]) -> bool:
    dropped = False
    with path.open(encoding="utf-8", newline="") as exported, to.open("w", encoding="utf-8", newline="") as kept:
        for line in exported:
            theirs = str(json.loads(line).get("customer_id")) in customer_ids
            dropped |= theirs
            if not theirs:
                kept.write(line)
    return dropped


def _others_of_parquet(path: Path, to: Path, customer_ids: set[str]) -> bool:
    if "customer_id" not in pq.read_schema(path).names:
        return False
    table = pq.read_table(path, partitioning=None)
    theirs = pc.is_in(table.column("customer_id").cast(pa.string()), pa.array(sorted(customer_ids), pa.string()))
    if not pc.any(theirs).as_py():
        return False
    pq.write_table(_spelt_out(table.filter(pc.invert(theirs))), to)
    return True


def _spelt_out(table: pa.Table) -> pa.Table:
    """Words in place of categories: a list of categories still has those of which no row is left."""
    fields = [each.with_type(each.type.value_type) if _is_coded(each) else each for each in table.schema]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def _is_coded(field: pa.Field) -> bool:
    return pa.types.is_dictionary(field.type)


_OTHERS: dict[str, Callable[[Path, Path, set[str]], bool]] = {
    ".csv": _others_of_csv,
    ".ndjson": _others_of_ndjson,
    ".parquet": _others_of_parquet,
}


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")


def _trimmed(text: str) -> str:
    return text.replace("\0", "").strip(" ")
