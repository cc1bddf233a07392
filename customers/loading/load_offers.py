"""Loads record kind `offers`: offers with the products and categories that they cover."""

from datetime import UTC, datetime

import pyarrow as pa
import sqlalchemy as sa

from customers.database import change_counters, engine
from customers.database.schema import offer_categories, offer_products, offers
from customers.database.writes import RowCounts, TransactionFactory
from customers.ledger.interactions import CHANNELS
from customers.loading import load_products, validation
from customers.loading.connectors.files import Records
from customers.loading.record_kind import RecordKind
from customers.loading.validation import ColumnCheck
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

OFFER_KINDS = ("coupon", "discount", "points", "bundle", "gift")
TEXT_COLUMNS = ("campaign_id", "name", "segment")
# Columns of table `offers` that a record sets; covered products and categories have tables of their own.
STORED_COLUMNS = (
    *TEXT_COLUMNS,
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
    *TEXT_COLUMNS,
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
BATCH_SIZE = 500


def _checks(shop: Shop) -> list[ColumnCheck]:
    ends_at = validation.instant("ends_at", shop.timezone, required=True)
    not_after = ("ends_at__p <= starts_at__p", "ends_at is not after starts_at")
    product_ids = validation.text_list("product_ids")
    covers_nothing = ("len(product_ids__p) = 0 and len(categories__p) = 0", "neither product_ids nor categories")
    value = validation.number("value")
    value_rejections = (
        ("value__p < 0", "value is negative"),
        ("value__p > 100 and lower(value_kind) = ''percent''".replace("''", "'"), "value is more than 100 percent"),
    )
    return [
        validation.identifier("offer_id"),
        *(validation.any_text(name) for name in TEXT_COLUMNS),
        validation.choice("kind", OFFER_KINDS),
        validation.instant("starts_at", shop.timezone, required=True),
        ColumnCheck(ends_at.name, ends_at.value, (*ends_at.rejections, not_after), ends_at.parsed_columns),
        ColumnCheck(value.name, value.value, (*value.rejections, *value_rejections), value.parsed_columns),
        validation.choice("value_kind", ("amount", "percent", "points")),
        validation.currency(shop.currency),
        validation.amount("min_spend", negative=False),
        validation.amount("budget", negative=False),
        validation.text_list("channels", CHANNELS),
        validation.choice("audience", ("all", "received"), "all"),
        validation.text_list("categories"),
        ColumnCheck(
            product_ids.name, product_ids.value, (*product_ids.rejections, covers_nothing), product_ids.parsed_columns
        ),
    ]


def _load(shop: Shop, source: str, records: Records, open_transaction: TransactionFactory) -> RowCounts:
    """Write offers in batches with their coverage. A record is the whole offer: a missing field is empty."""
    _create_shaped(records)
    product_ids = records.connection.sql("select distinct unnest(product_ids) from shaped order by 1").to_arrow_table()
    product_keys, stubs = load_products.get_or_create_products(
        open_transaction, source, product_ids.column(0).to_pylist()
    )
    key_columns = {
        "product_id": pa.array(product_keys.keys(), pa.string()),
        "product_key": pa.array(product_keys.values(), pa.int64()),
    }
    records.connection.register("product_key_table", pa.table(key_columns))
    counts = RowCounts(stubs=stubs)
    offer_table = records.connection.sql(
        f"select offer_id, {', '.join(STORED_COLUMNS)}, content from shaped order by offer_id"
    )
    for rows in engine.chunks(offer_table.to_arrow_table().to_pylist(), BATCH_SIZE):
        with open_transaction() as connection:
            counts += _upsert(connection, source, records, rows)
    return counts


def _create_shaped(records: Records) -> None:
    value_columns = [name for name in STORED_COLUMNS if name != "channels"]
    texts = [f"coalesce({name}::varchar, '')" for name in value_columns]
    lists = [f"array_to_string({name}, chr(30))" for name in ("channels", "product_ids", "categories")]
    records.connection.execute(
        f"""create temp table shaped as
            select offer_id, {", ".join(value_columns)}, to_json(channels)::varchar as channels,
                   product_ids, categories,
                   (md5_number_lower(concat_ws(chr(31), {", ".join(texts)}, {", ".join(lists)})) >> 1)::bigint
                     as content
            from checked where reason is null and not is_repeat"""
    )


def _upsert(connection: sa.Connection, source: str, records: Records, rows: list[dict]) -> RowCounts:
    query = sa.select(offers.c.offer_id, offers.c.offer_key, offers.c.content).where(offers.c.source == source)
    existing = {
        row.offer_id: row
        for row in connection.execute(query.where(offers.c.offer_id.in_([row["offer_id"] for row in rows])))
    }
    new = [row for row in rows if row["offer_id"] not in existing]
    changed = [
        row for row in rows if row["offer_id"] in existing and existing[row["offer_id"]].content != row["content"]
    ]
    last_key = connection.execute(sa.select(sa.func.max(offers.c.offer_key))).scalar() or 0
    keys = {row["offer_id"]: key for key, row in enumerate(new, last_key + 1)}
    changed_keys = {row["offer_id"]: existing[row["offer_id"]].offer_key for row in changed}
    changed_at = to_micros(datetime.now(UTC))
    values = ((keys[row["offer_id"]], source, changed_at, *row.values()) for row in new)
    columns = ["offer_key", "source", "changed_at", "offer_id", *STORED_COLUMNS, "content"]
    engine.insert_many(connection, offers, columns, values)
    for row in changed:
        statement = offers.update().where(offers.c.offer_key == changed_keys[row["offer_id"]])
        connection.execute(statement.values(row | {"changed_at": changed_at}))
    if keys or changed_keys:
        _write_coverage(connection, records, keys | changed_keys, replaced=list(changed_keys.values()))
        change_counters.increment_counters(connection, {change_counters.OFFERS_COUNTER})
    return RowCounts(inserted=len(new), updated=len(changed), unchanged=len(rows) - len(new) - len(changed))


def _write_coverage(connection: sa.Connection, records: Records, keys: dict[str, int], *, replaced: list[int]) -> None:
    """Write the covered products and categories of these offers; those of `replaced` offers are deleted first."""
    for table in (offer_products, offer_categories):
        if replaced:
            connection.execute(table.delete().where(table.c.offer_key.in_(replaced)))
    offer_keys = {"offer_id": pa.array(keys.keys(), pa.string()), "offer_key": pa.array(keys.values(), pa.int64())}
    records.connection.register("written", pa.table(offer_keys))
    for_products = records.connection.execute(
        """select distinct offer_key, product_key
           from (select offer_id, unnest(product_ids) as product_id from shaped)
           join written using (offer_id) join product_key_table using (product_id) order by all"""
    ).fetchall()
    for_categories = records.connection.execute(
        """select offer_key, category from (select offer_id, unnest(categories) as category from shaped)
           join written using (offer_id) order by all"""
    ).fetchall()
    engine.insert_many(connection, offer_products, ["offer_key", "product_key"], for_products)
    engine.insert_many(connection, offer_categories, ["offer_key", "category"], for_categories)


RECORD_KIND = RecordKind(
    name="offers",
    required=("offer_id", "starts_at", "ends_at"),
    columns=COLUMNS,
    key=("offer_id",),
    clear_text_columns=COLUMNS,
    checks=_checks,
    load=_load,
)
