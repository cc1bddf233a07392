"""Offers: coupons, discounts and gifts that the shop can make, each with its dates and what it is for."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from customers import catalogue, checks, database, ids, money, transactions
from customers.checks import Check
from customers.instants import micros
from customers.interactions import CHANNELS
from customers.kinds import Counts, Kind, Writer
from customers.schema import ledger_months, offer_categories, offer_products, offers, products
from customers.shop import Shop
from customers.sources.files import Records

KINDS = ("coupon", "discount", "points", "bundle", "gift")
WORDS = ("campaign_id", "name", "segment")
# What an offer says besides what it is for, as it is kept.
KEPT = (
    *WORDS,
    "kind",
    "starts_at",
    "ends_at",
    "value",
    "value_kind",
    "min_spend_minor",
    "budget_minor",
    "currency",
    "channels",
    "audience",
)
COLUMNS = (
    "offer_id",
    *WORDS,
    "kind",
    "starts_at",
    "ends_at",
    "value",
    "value_kind",
    "min_spend",
    "budget",
    "currency",
    "channels",
    "audience",
    "product_ids",
    "categories",
)
SLICE = 500
MARK = "offers"
BOOK = {
    "offer_key": "int64",
    "offer_id": "object",
    "campaign_id": "object",
    "name": "object",
    "kind": "object",
    "starts_at": "datetime64[us, UTC]",
    "ends_at": "datetime64[us, UTC]",
    "value": "float64",
    "value_kind": "object",
    "min_spend": "float64",
    "budget": "float64",
    "currency": "object",
    "channels": "object",
    "segment": "object",
    "audience": "object",
    "sensitive": "bool",
}


@dataclass(frozen=True, slots=True)
class Book:
    """The offers of the shop, one a row, and the products that each covers; money in major units."""

    offers: pd.DataFrame
    covers: pd.DataFrame


def book(shop: Shop, *, at: datetime | None = None) -> Book:
    """Every offer, or those that run at a moment; an offer on a category covers the category's products of today."""
    whole = _edited(shop, edition(shop))
    listed = whole.offers
    if at is None:
        return Book(listed.copy(), whole.covers.copy())
    running = listed[(listed["starts_at"] <= at) & (listed["ends_at"] > at)].reset_index(drop=True)
    return Book(running, whole.covers[whole.covers["offer_key"].isin(running["offer_key"])].reset_index(drop=True))


@lru_cache(maxsize=4)
def _edited(shop: Shop, _edition: tuple[int, int]) -> Book:
    """The whole book, read once an edition: there are far more products on offer than offers."""
    with database.reading(shop) as connection:
        rows = connection.execute(offers.select().order_by(offers.c.offer_key)).mappings().all()
        covers = _covers(connection)
        guarded = connection.execute(sa.select(products.c.product_key).where(products.c.sensitive)).scalars().all()
    frame = _framed(pd.DataFrame(rows, columns=[column.name for column in offers.columns]), shop.currency)
    frame["sensitive"] = frame["offer_key"].isin(covers.loc[covers["product_key"].isin(guarded), "offer_key"])
    return Book(frame.reindex(columns=list(BOOK)).astype(BOOK), covers)


def ids_of(shop: Shop, offer_keys: Iterable[int]) -> dict[int, str]:
    """The id of each offer key; `source:id` where two sources use the same id."""
    with database.reading(shop) as connection:
        return ids.names(connection, offers, offer_keys, "offer")


def edition(shop: Shop) -> tuple[int, int]:
    """Two numbers of which one rises whenever an offer or a product changes: a book of the same edition is the same."""
    marks = sa.select(ledger_months.c.month, ledger_months.c.changed_no)
    with database.reading(shop) as connection:
        found = dict(
            connection.execute(marks.where(ledger_months.c.month.in_([MARK, catalogue.MIRROR_MARK]))).tuples().all()
        )
    return found.get(MARK, 0), found.get(catalogue.MIRROR_MARK, 0)


def _covers(connection: sa.Connection) -> pd.DataFrame:
    named = sa.select(offer_products.c.offer_key, offer_products.c.product_key)
    by_category = sa.select(offer_categories.c.offer_key, products.c.product_key).join(
        products, products.c.category == offer_categories.c.category
    )
    columns: list[np.ndarray] = []
    for rows in database.fetched(connection, sa.union(named, by_category), 1_000_000):
        columns.append(np.array(list(zip(*rows, strict=True)), np.int64))
    keys = np.concatenate([np.empty((2, 0), np.int64), *columns], axis=1)
    keys = keys[:, np.lexsort((keys[1], keys[0]))]
    return pd.DataFrame({"offer_key": keys[0], "product_key": keys[1]})


def _framed(frame: pd.DataFrame, currency: str) -> pd.DataFrame:
    """Money of another currency is not known in the shop's own, as in the lines: nothing weighs yen against dollars."""
    own, unit = frame["currency"] == currency, float(10 ** money.EXPONENTS[currency])
    return frame.assign(
        value=frame["value"].astype("float64").where(own | (frame["value_kind"] != "amount")),
        min_spend=frame["min_spend_minor"].astype("float64").where(own) / unit,
        budget=frame["budget_minor"].astype("float64").where(own) / unit,
        channels=[json.loads(listed) for listed in frame["channels"]],
        starts_at=pd.to_datetime(frame["starts_at"].astype("int64"), unit="us", utc=True),
        ends_at=pd.to_datetime(frame["ends_at"].astype("int64"), unit="us", utc=True),
    )


def _checks(shop: Shop) -> list[Check]:
    ends = checks.instant("ends_at", shop.timezone, required=True)
    over = ("ends_at__p <= starts_at__p", "ends_at is not after starts_at")
    products_ = checks.listed("product_ids")
    for_nothing = ("len(product_ids__p) = 0 and len(categories__p) = 0", "neither product_ids nor categories")
    value = checks.number("value")
    wrong_value = (
        ("value__p < 0", "value is negative"),
        ("value__p > 100 and lower(value_kind) = ''percent''".replace("''", "'"), "value is more than 100 percent"),
    )
    return [
        checks.identifier("offer_id"),
        *(checks.words(name) for name in WORDS),
        checks.choice("kind", KINDS),
        checks.instant("starts_at", shop.timezone, required=True),
        Check(ends.name, ends.value, (*ends.wrong, over), ends.parsed),
        Check(value.name, value.value, (*value.wrong, *wrong_value), value.parsed),
        checks.choice("value_kind", ("amount", "percent", "points")),
        checks.currency(shop.currency),
        checks.amount("min_spend", negative=False),
        checks.amount("budget", negative=False),
        checks.listed("channels", CHANNELS),
        checks.choice("audience", ("all", "received"), "all"),
        checks.listed("categories"),
        Check(products_.name, products_.value, (*products_.wrong, for_nothing), products_.parsed),
    ]


def _keep(shop: Shop, source: str, records: Records, write: Writer) -> Counts:
    """Offers in slices, each with all that it is for. An offer is said whole: what is not said of it is empty."""
    _shape(records)
    named = records.connection.sql("select distinct unnest(product_ids) from shaped order by 1").to_arrow_table()
    stocked, stubs = catalogue.stub(write, source, named.column(0).to_pylist())
    known = {"product_id": pa.array(stocked.keys(), pa.string()), "product_key": pa.array(stocked.values(), pa.int64())}
    records.connection.register("products_known", pa.table(known))
    counts = Counts(stubs=stubs)
    said = records.connection.sql(f"select offer_id, {', '.join(KEPT)}, content from shaped order by offer_id")
    for rows in database.chunks(said.to_arrow_table().to_pylist(), SLICE):
        with write() as connection:
            counts += _write(connection, source, records, rows)
    return counts


def _shape(records: Records) -> None:
    said = [name for name in KEPT if name != "channels"]
    lists = [f"array_to_string({name}, chr(30))" for name in ("channels", "product_ids", "categories")]
    records.connection.execute(
        f"""create temp table shaped as
            select offer_id, {", ".join(said)}, to_json(channels)::varchar as channels, product_ids, categories,
                   (md5_number_lower(concat_ws(chr(31), {", ".join(f"coalesce({name}::varchar, '')" for name in said)},
                                               {", ".join(lists)})) >> 1)::bigint as content
            from checked where reason is null and not again"""
    )


def _write(connection: sa.Connection, source: str, records: Records, rows: list[dict]) -> Counts:
    query = sa.select(offers.c.offer_id, offers.c.offer_key, offers.c.content).where(offers.c.source == source)
    kept = {
        row.offer_id: row
        for row in connection.execute(query.where(offers.c.offer_id.in_([row["offer_id"] for row in rows])))
    }
    new = [row for row in rows if row["offer_id"] not in kept]
    changed = [row for row in rows if row["offer_id"] in kept and kept[row["offer_id"]].content != row["content"]]
    last = connection.execute(sa.select(sa.func.max(offers.c.offer_key))).scalar() or 0
    keys = {row["offer_id"]: key for key, row in enumerate(new, last + 1)}
    again = {row["offer_id"]: kept[row["offer_id"]].offer_key for row in changed}
    changed_at = micros(datetime.now(UTC))
    values = ((keys[row["offer_id"]], source, changed_at, *row.values()) for row in new)
    columns = ["offer_key", "source", "changed_at", "offer_id", *KEPT, "content"]
    database.insert_many(connection, offers, columns, values)
    for row in changed:
        this_one = offers.update().where(offers.c.offer_key == again[row["offer_id"]])
        connection.execute(this_one.values(row | {"changed_at": changed_at}))
    if keys or again:
        _write_lists(connection, records, keys | again, forget=list(again.values()))
        transactions.mark(connection, {MARK})
    return Counts(inserted=len(new), updated=len(changed), unchanged=len(rows) - len(new) - len(changed))


def _write_lists(connection: sa.Connection, records: Records, keys: dict[str, int], *, forget: list[int]) -> None:
    """What each of these offers is for, in place of what it was for."""
    for table in (offer_products, offer_categories):
        if forget:
            connection.execute(table.delete().where(table.c.offer_key.in_(forget)))
    written = {"offer_id": pa.array(keys.keys(), pa.string()), "offer_key": pa.array(keys.values(), pa.int64())}
    records.connection.register("written", pa.table(written))
    for_products = records.connection.execute(
        """select distinct offer_key, product_key
           from (select offer_id, unnest(product_ids) as product_id from shaped)
           join written using (offer_id) join products_known using (product_id) order by all"""
    ).fetchall()
    for_categories = records.connection.execute(
        """select offer_key, category from (select offer_id, unnest(categories) as category from shaped)
           join written using (offer_id) order by all"""
    ).fetchall()
    database.insert_many(connection, offer_products, ["offer_key", "product_key"], for_products)
    database.insert_many(connection, offer_categories, ["offer_key", "category"], for_categories)


KIND = Kind(
    name="offers",
    required=("offer_id", "starts_at", "ends_at"),
    columns=COLUMNS,
    key=("offer_id",),
    shown=COLUMNS,
    checks=_checks,
    keep=_keep,
)
