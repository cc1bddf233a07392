"""Anonymises the sales of an erased customer in ledger and mirror, and removes the customer's rows from other files."""

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

from customers.database.schema import products, transactions_history
from customers.database.schema import transactions as ledger
from customers.ledger import line_digest, mirror_counter, transactions
from customers.shop.settings import Shop

#: Name of the folder of an export's parts until all of them are written.
BEING_WRITTEN = "new"
LINE_KEY = ("source", "order_id", "line_id")


def anonymise_ledger(connection: sa.Connection, key: int) -> tuple[int, set[str]]:
    """Remove the customer from their order lines and earlier versions; returns their number and UTC months.

    The content digest is recomputed, since trying every id on the old one would reveal the customer.
    """
    current, superseded = (
        _customer_lines(connection, ledger, key),
        _customer_lines(connection, transactions_history, key),
    )
    _update_lines(connection, ledger, current, LINE_KEY)
    _update_lines(connection, transactions_history, superseded, ("version_id",))
    for source, order_id in sorted({(row["source"], row["order_id"]) for row in current if row["numbered"]}):
        _renumber_lines(connection, source, order_id)
    sold_at = np.array([row["sold_at"] for row in current + superseded], np.int64)
    return len(current) + len(superseded), transactions.utc_months(sold_at)


def anonymise_mirror(
    shop: Shop,
    keys: Collection[int],
    before: Mapping[str, int] | None = None,
    after: Mapping[str, int] | None = None,
) -> None:
    """Remove these customers from the mirror's files at once, without a refresh.

    `before` and `after` are the counters around this erasure: a file that was current before it still is.
    """
    moves = {name: ((before or {}).get(name), number) for name, number in (after or {}).items()}
    for path in sorted(shop.ledger.glob("month=*/part.parquet")):
        _rewrite_file(path, keys, keep_rows=True, move=moves.get(path.parent.name.removeprefix("month=")))
    for name in ("interactions", "consents"):
        _rewrite_file(shop.ledger / f"{name}.parquet", keys, keep_rows=False, move=moves.get(name))


def purge_rejects(shop: Shop, customer_ids: set[str]) -> None:
    """Remove rows that name one of these ids from the files of rejected rows."""
    for path in sorted((shop.home / "rejects").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as rejected:
            header, *rows = list(csv.reader(rejected)) or [[]]
        positions = [header.index(name) for name in ("customer_id", "referred_by") if name in header]
        remaining = [
            row for row in rows if not any(_strip_text(row[position]) in customer_ids for position in positions)
        ]
        if len(remaining) < len(rows):
            _write_rows(path, header, remaining)


def purge_exports(shop: Shop, customer_ids: set[str]) -> None:
    """Remove the rows of these customer ids from the tables exported into the home (CSV, NDJSON, Parquet).

    Parts that an export is writing, or has just moved, are left to it: it begins again after an erasure.
    """
    for path in sorted((shop.home / "exports").rglob("*")):
        if path.suffix in _PURGERS and path.is_file():
            partial = _temporary_path(path)
            try:
                if _PURGERS[path.suffix](path, partial, customer_ids):
                    shutil.copymode(path, partial)
                    os.replace(partial, path)
            except FileNotFoundError:
                continue
            except pa.ArrowInvalid:
                if path.parent.name != BEING_WRITTEN:
                    raise
            finally:
                partial.unlink(missing_ok=True)


def _customer_lines(connection: sa.Connection, table: sa.Table, key: int) -> list[dict]:
    query = sa.select(table, products.c.product_id).where(table.c.customer_key == key)
    joined = query.join(products, products.c.product_key == table.c.product_key)
    return [dict(row) for row in connection.execute(joined).mappings()]


def _update_lines(connection: sa.Connection, table: sa.Table, rows: list[dict], key_columns: tuple[str, ...]) -> None:
    if not rows:
        return
    lines = pa.Table.from_pylist(rows, schema=_arrow_schema(rows[0]))
    contents = line_digest.anonymise_lines(lines, {rows[0]["customer_key"]}).column("content").to_pylist()
    change = table.update().values(customer_key=None, content=sa.bindparam("anonymous"))
    for name in key_columns:
        change = change.where(table.c[name] == sa.bindparam(f"this_{name}"))
    values = [
        {f"this_{name}": row[name] for name in key_columns} | {"anonymous": content}
        for row, content in zip(rows, contents, strict=True)
    ]
    connection.execute(change, values)


def _arrow_schema(row: dict) -> pa.Schema:
    """Arrow types from the ledger's SQL types, so that none is inferred from the values; others are texts."""
    arrow_types = {sa.BigInteger: pa.int64(), sa.Integer: pa.int64(), sa.Float: pa.float64(), sa.Boolean: pa.bool_()}
    columns = {**transactions_history.c, **ledger.c}
    return pa.schema(
        [
            (name, arrow_types.get(type(columns[name].type), pa.string()) if name in columns else pa.string())
            for name in row
        ]
    )


def _renumber_lines(connection: sa.Connection, source: str, order_id: str) -> None:
    """Lines without an id of their own are numbered in the order of their digests: renumber them by the new digests."""
    lines = ledger.c
    is_same_order = (lines.source == source) & (lines.order_id == order_id)
    groups: dict[int, list[dict]] = {}
    for row in connection.execute(ledger.select().where(is_same_order, lines.numbered)).mappings():
        groups.setdefault(row["product_key"], []).append(dict(row))
    for rows in groups.values():
        line_ids = sorted((row["line_id"] for row in rows), key=lambda line_id: int(line_id.rsplit("~", 1)[1]))
        ranked = sorted(rows, key=lambda row: row["content"])
        if [row["line_id"] for row in ranked] != line_ids:
            connection.execute(ledger.delete().where(is_same_order, lines.line_id.in_(line_ids)))
            connection.execute(
                ledger.insert(), [row | {"line_id": name} for row, name in zip(ranked, line_ids, strict=True)]
            )


def _rewrite_file(path: Path, keys: Collection[int], *, keep_rows: bool, move: tuple[int | None, int] | None) -> None:
    """Rewrite a file of the mirror without these customers.

    `move` are two counters: a file that is of the first one is of the second one afterwards.
    """
    if not path.exists():
        return
    is_moved = move is not None and move[0] != move[1] and mirror_counter.read_counter(path) == move[0]
    if not is_moved and not _has_customers(path, keys):
        return
    table = pq.read_table(path, partitioning=None)
    is_erased = _customer_mask(table, keys)
    if keep_rows:
        customer_keys = pc.if_else(is_erased, pa.scalar(None, pa.int64()), table.column("customer_key"))
        table = table.set_column(table.schema.get_field_index("customer_key"), "customer_key", customer_keys)
    else:
        table = table.filter(pc.invert(is_erased))
    if is_moved and move is not None:
        table = table.replace_schema_metadata(mirror_counter.with_counter(table.schema, move[1]).metadata)
    partial = _temporary_path(path)
    pq.write_table(table, partial, compression="zstd")
    os.replace(partial, path)


def _has_customers(path: Path, keys: Collection[int]) -> bool:
    table = pq.read_table(path, columns=["customer_key"], partitioning=None)
    return bool(pc.any(_customer_mask(table, keys)).as_py())


def _customer_mask(table: pa.Table, keys: Collection[int]) -> pa.ChunkedArray:
    return pc.is_in(table.column("customer_key"), pa.array(list(keys), pa.int64()))


def _write_rows(path: Path, header: list[str], rows: list[list[str]]) -> None:
    """Replace the file by these rows, or delete it where there are none."""
    if not rows:
        path.unlink()
        return
    partial = _temporary_path(path)
    partial.touch(mode=0o600)
    with partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    os.replace(partial, path)


def _purge_csv(path: Path, target: Path, customer_ids: set[str]) -> bool:
    """Write the rows of other customers to `target`; returns whether any row was dropped."""
    has_dropped = False
    with path.open(encoding="utf-8", newline="") as exported, target.open("w", encoding="utf-8", newline="") as output:
        reader, writer = csv.reader(exported), csv.writer(output, lineterminator="\n")
        header = next(reader, [])
        if "customer_id" not in header:
            return False
        position = header.index("customer_id")
        writer.writerow(header)
        for row in reader:
            is_match = row[position] in customer_ids
            has_dropped |= is_match
            if not is_match:
                writer.writerow(row)
    return has_dropped


def _purge_ndjson(path: Path, target: Path, customer_ids: set[str]) -> bool:
    has_dropped = False
    with path.open(encoding="utf-8", newline="") as exported, target.open("w", encoding="utf-8", newline="") as output:
        for line in exported:
            is_match = str(json.loads(line).get("customer_id")) in customer_ids
            has_dropped |= is_match
            if not is_match:
                output.write(line)
    return has_dropped


def _purge_parquet(path: Path, target: Path, customer_ids: set[str]) -> bool:
    if "customer_id" not in pq.read_schema(path).names:
        return False
    table = pq.read_table(path, partitioning=None)
    is_match = pc.is_in(table.column("customer_id").cast(pa.string()), pa.array(sorted(customer_ids), pa.string()))
    if not pc.any(is_match).as_py():
        return False
    pq.write_table(_decode_dictionaries(table.filter(pc.invert(is_match))), target)
    return True


def _decode_dictionaries(table: pa.Table) -> pa.Table:
    """Plain values in place of dictionary columns: a dictionary still holds the values of removed rows."""
    fields = [each.with_type(each.type.value_type) if _is_dictionary(each) else each for each in table.schema]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def _is_dictionary(field: pa.Field) -> bool:
    return pa.types.is_dictionary(field.type)


_PURGERS: dict[str, Callable[[Path, Path, set[str]], bool]] = {
    ".csv": _purge_csv,
    ".ndjson": _purge_ndjson,
    ".parquet": _purge_parquet,
}


def _temporary_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")


def _strip_text(text: str) -> str:
    return text.replace("\0", "").strip(" ")
