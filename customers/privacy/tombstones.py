"""Tombstones: how the shop knows whom it has forgotten, without remembering them.

Of an erased customer's ids only keyed digests stay. Whoever loads the same files again brings nobody back:
a sale with such an id is kept without a customer, and any other record of theirs is turned away.
"""

from collections.abc import Iterable

import pyarrow as pa
import sqlalchemy as sa

from customers import database, vault
from customers.kinds import Kind
from customers.schema import erased, erasures
from customers.shop import Shop
from customers.sources.files import Records

REASON = "this customer was erased"
# More ids than this at once, and reading every tombstone is quicker than asking for each.
MANY = 5_000


def of(connection: sa.Connection, shop: Shop, source: str, customer_ids: Iterable[str]) -> set[str]:
    """Those of these ids of a source whose customers were erased."""
    if connection.execute(sa.select(erased.c.token).limit(1)).first() is None:
        return set()
    safe = vault.of(shop)
    by_token = {safe.tombstone(source, customer_id): customer_id for customer_id in customer_ids}
    return {by_token[token] for token in _standing(connection, list(by_token)) if token in by_token}


def put(connection: sa.Connection, shop: Shop, named: Iterable[tuple[str, str]], erased_at: int) -> None:
    """These (source, customer_id) must not come back."""
    safe = vault.of(shop)
    tokens = {safe.tombstone(source, customer_id) for source, customer_id in named}
    fresh = sorted(tokens - set(_standing(connection, list(tokens))))
    database.insert_many(connection, erased, ["token", "erased_at"], ((token, erased_at) for token in fresh))


def mark(shop: Shop, source: str, kind: Kind, records: Records) -> None:
    """Rid the table `checked` of the erased: a record that can do without a customer loses it, others are turned away.

    The raw texts lose the ids too, so that no rejects file repeats them.
    """
    for column in ("customer_id", "referred_by"):
        if column in kind.columns:
            ids = records.connection.sql(f"select distinct {column} from checked where {column} is not null")
            gone = _gone(shop, source, ids.to_arrow_table().column(0).to_pylist(), column == "referred_by")
            if gone:
                _mark(records, gone, column, column in kind.required)


def newest(connection: sa.Connection) -> int:
    """The number of the last erasure; it rises when somebody is erased."""
    return connection.execute(sa.select(sa.func.max(erasures.c.erasure_id))).scalar() or 0


def since(connection: sa.Connection, erasure_id: int) -> set[int]:
    """The keys of those who were erased after this erasure."""
    later = sa.select(erasures.c.customer_key).where(erasures.c.erasure_id > erasure_id)
    return set(connection.execute(later).scalars())


def _gone(shop: Shop, source: str, ids: list[str], also_prefixed: bool) -> set[str]:
    """Those of these ids that are of the erased; who is spoken of by others may be written source:id."""
    by_source: dict[str, dict[str, str]] = {source: {text: text for text in ids}}
    for text in ids if also_prefixed else ():
        other, colon, plain = text.partition(":")
        if colon:
            by_source.setdefault(other, {})[plain] = text
    with database.reading(shop) as connection:
        found = [(texts, of(connection, shop, name, texts)) for name, texts in by_source.items()]
    return {texts[plain] for texts, gone in found for plain in gone}


def _mark(records: Records, gone: set[str], column: str, required: bool) -> None:
    records.connection.register("gone", pa.table({"id": pa.array(sorted(gone), pa.string())}))
    theirs = "(file_no, row_no) in (select (file_no, row_no) from of_the_gone)"
    records.connection.execute(
        f"""create or replace temp table of_the_gone as
              select file_no, row_no from checked where {column} in (select id from gone);
            update raw set {column} = null where {theirs};
            update checked set {f"reason = '{REASON}'" if required else f"{column} = null"} where {theirs};"""
    )
    records.connection.unregister("gone")


def _standing(connection: sa.Connection, tokens: list[bytes]) -> Iterable[bytes]:
    query = sa.select(erased.c.token)
    if len(tokens) > MANY:
        yield from map(bytes, connection.execute(query).scalars())
        return
    for chunk in database.chunks(tokens, 500):
        yield from map(bytes, connection.execute(query.where(erased.c.token.in_(chunk))).scalars())
