"""Loads record kind `interactions`: inserts new interactions and updates changed ones."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from customers import clock
from customers.database import change_counters, engine
from customers.database.change_counters import INTERACTIONS_COUNTER
from customers.database.schema import interactions, person_keys
from customers.database.writes import RowCounts, TransactionFactory
from customers.ledger import refresh_queue, watermark
from customers.ledger.interactions import (
    ANSWERED_AT_ATTRIBUTE,
    ANSWERED_STATUSES,
    CHANNELS,
    ENCRYPTION_PURPOSE,
    INTERACTION_KINDS,
    STATUSES,
)
from customers.loading import load_customers, validation
from customers.loading.connectors.files import Records
from customers.loading.load_transactions import CLOCK_TOLERANCE
from customers.loading.record_kind import RecordKind
from customers.loading.sql_text import quote_identifier
from customers.loading.validation import ColumnCheck
from customers.security import encryption
from customers.shop.settings import Shop
from customers.shop.timestamps import from_micros, to_micros

TEXT_COLUMNS = ("owner", "campaign_id", "offer_id", "product_id", "attribution_token")
STORED_COLUMNS = ("happened_at", "channel", "kind", "status", *TEXT_COLUMNS, "rating")
COLUMNS = ("interaction_id", "customer_id", *STORED_COLUMNS, "text", ANSWERED_AT_ATTRIBUTE)
# A change in one of these makes it another fact, with a known_at of its own.
IDENTIFYING_COLUMNS = ("kind", "happened_at", "customer_key", "campaign_id", "offer_id")
CLEAR_TEXT_COLUMNS = tuple(name for name in COLUMNS if name not in ("owner", "text", "attribution_token"))
UNKNOWN_CUSTOMER = "customer_id is unknown; load customers or sales first"
BATCH_SIZE = 5_000


def _checks(shop: Shop) -> list[ColumnCheck]:
    latest = to_micros(datetime.now(UTC) + CLOCK_TOLERANCE)
    return [
        validation.identifier("interaction_id"),
        validation.identifier("customer_id"),
        validation.past_instant("happened_at", shop.timezone, latest=latest, required=True),
        validation.choice("channel", CHANNELS),
        validation.choice("kind", INTERACTION_KINDS),
        validation.choice("status", STATUSES),
        *(validation.any_text(name) for name in TEXT_COLUMNS),
        validation.integer_between("rating", 1, 5),
        validation.any_text("text"),
        _answered_check(shop, latest),
    ]


def _answered_check(shop: Shop, latest: int) -> ColumnCheck:
    """The time of the answer, as ISO 8601 text in UTC."""
    check = validation.past_instant(ANSWERED_AT_ATTRIBUTE, shop.timezone, latest=latest)
    return replace(check, value=f"strftime(make_timestamp({check.value}), '%Y-%m-%dT%H:%M:%S.%f+00:00')")


def _reject_unknown_customers(shop: Shop, source: str, records: Records) -> None:
    """Reject interactions of unknown customers: without a customer they could be neither exported nor erased."""
    id_table = records.connection.sql("select distinct customer_id from checked where reason is null").to_arrow_table()
    customer_ids = id_table.column(0).to_pylist()
    with engine.read_transaction(shop) as connection:
        existing = load_customers.select_keys(connection, source, customer_ids)
    if len(existing) == len(customer_ids):
        return
    unknown_ids = [name for name in customer_ids if name not in existing]
    records.connection.register("unknown_customers", pa.table({"id": pa.array(unknown_ids, pa.string())}))
    records.connection.execute(
        f"update checked set reason = '{UNKNOWN_CUSTOMER}' "
        "where reason is null and customer_id in (select id from unknown_customers)"
    )


def _load(shop: Shop, source: str, records: Records, open_transaction: TransactionFactory) -> RowCounts:
    extra_columns = [name for name in records.columns if name not in COLUMNS]
    present = [name for name in COLUMNS if name in records.columns]
    value_list = ", ".join(
        [f"c.{quote_identifier(name)}" for name in present]
        + [f"raw.{quote_identifier(name)}" for name in extra_columns]
    )
    extra_list = "".join(f", {validation.trimmed(name)} as {quote_identifier(name)}" for name in extra_columns)
    cursor = records.connection.execute(
        f"""select {value_list} from checked c
            join (select file_no, row_no{extra_list} from raw) raw using (file_no, row_no)
            where c.reason is null and not c.is_repeat order by c.interaction_id"""
    )
    sealed_columns = [name for name in present if name == "text"]
    sealed_columns += [name for name in extra_columns if load_customers.PERSONAL_NAME_PATTERN.search(name)]
    attribute_columns = [
        name
        for name in (*present, *extra_columns)
        if name == ANSWERED_AT_ATTRIBUTE or (name in extra_columns and name not in sealed_columns)
    ]
    loader = _InteractionLoader(shop, source, [*present, *extra_columns], sealed_columns, attribute_columns)
    counts = RowCounts()
    while rows := cursor.fetchmany(BATCH_SIZE):
        with open_transaction() as connection:
            counts += loader.load_batch(connection, [dict(zip(loader.columns, row, strict=True)) for row in rows])
            if records.changed_customers is not None:
                refresh_queue.enqueue(connection, loader.changed_customers)
                records.changed_customers |= loader.changed_customers
            elif loader.changed_customers:
                change_counters.increment_counters(connection, {change_counters.LOADS_COUNTER})
    return counts


class _InteractionLoader:
    """Writes interactions in batches; a column that the file lacks keeps its stored value."""

    def __init__(
        self, shop: Shop, source: str, columns: list[str], sealed_columns: list[str], attribute_columns: list[str]
    ) -> None:
        self.shop, self.cipher, self.source = shop, encryption.get_cipher(shop), source
        self.columns, self.sealed_columns, self.attribute_columns = columns, sealed_columns, attribute_columns
        self.present_columns = [name for name in STORED_COLUMNS if name in columns]
        self.changed_customers: set[int] = set()

    def load_batch(self, connection: sa.Connection, rows: list[dict[str, Any]]) -> RowCounts:
        """Write one batch in the transaction of `connection`; a changed interaction keeps its known_at.

        Where one of IDENTIFYING_COLUMNS changed, it is another fact: the row gets a new known_at, so that no earlier
        cutoff sees it.
        """
        keys = load_customers.select_keys(connection, self.source, list({row["customer_id"] for row in rows}))
        before = self._select_existing(connection, [row["interaction_id"] for row in rows])
        # A customer who was erased after this load began is unknown.
        after = {
            row["interaction_id"]: self._merge_row(row, keys, before) for row in rows if row["customer_id"] in keys
        }
        changed = {name: entry for name, entry in after.items() if entry != before.get(name)}
        self._write(connection, changed, before)
        self.changed_customers = {entry["customer_key"] for entry in changed.values()}
        self.changed_customers |= {before[name]["customer_key"] for name in changed if name in before}
        inserted = sum(name not in before for name in changed)
        return RowCounts(inserted=inserted, updated=len(changed) - inserted, unchanged=len(rows) - len(changed))

    def _select_existing(self, connection: sa.Connection, interaction_ids: list[str]) -> dict[str, dict[str, Any]]:
        query = sa.select(interactions, person_keys.c.wrapped).outerjoin(
            person_keys, person_keys.c.customer_key == interactions.c.customer_key
        )
        query = query.where(interactions.c.source == self.source, interactions.c.interaction_id.in_(interaction_ids))
        return {row["interaction_id"]: self._decrypt_row(row) for row in connection.execute(query).mappings()}

    def _decrypt_row(self, row: sa.RowMapping) -> dict[str, Any]:
        key, wrapped, sealed = row["customer_key"], row["wrapped"], row["sealed_text"]
        sealed_fields = self.cipher.decrypt(key, wrapped, sealed, ENCRYPTION_PURPOSE) if wrapped and sealed else {}
        stored_values = {name: row[name] for name in STORED_COLUMNS}
        return {
            **stored_values,
            "customer_key": key,
            "sealed_fields": sealed_fields,
            "attributes": json.loads(row["attributes"] or "{}"),
        }

    def _merge_row(
        self, row: dict[str, Any], keys: dict[str, int], before: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        previous = before.get(row["interaction_id"]) or {
            **dict.fromkeys(STORED_COLUMNS),
            "sealed_fields": {},
            "attributes": {},
        }
        sealed_fields = {**previous["sealed_fields"], **{name: row[name] for name in self.sealed_columns}}
        attribute_values = {**previous["attributes"], **{name: row[name] for name in self.attribute_columns}}
        return {
            **{name: previous[name] for name in STORED_COLUMNS},
            **{name: row[name] for name in self.present_columns},
            "customer_key": keys[row["customer_id"]],
            "sealed_fields": {name: value for name, value in sealed_fields.items() if value is not None},
            "attributes": {name: value for name, value in attribute_values.items() if value is not None},
        }

    def _write(self, connection: sa.Connection, changed: dict[str, dict[str, Any]], before: dict[str, Any]) -> None:
        if not changed:
            return
        wrapped = self._get_or_create_keys(
            connection, {entry["customer_key"] for entry in changed.values() if entry["sealed_fields"]}
        )
        arrived_at, watermark_micros = (
            to_micros(clock.arrival_time(self.shop)),
            watermark.read_watermark_micros(connection),
        )
        default_times = {
            interaction_id: arrived_at
            if watermark_micros and entry["happened_at"] < watermark_micros
            else entry["happened_at"]
            for interaction_id, entry in changed.items()
        }
        rows = {
            interaction_id: self._encrypt_row(
                self._with_answered_at(entry, before.get(interaction_id), arrived_at), wrapped
            )
            for interaction_id, entry in changed.items()
        }
        recorded_at = {
            interaction_id: default_times[interaction_id]
            for interaction_id, row in rows.items()
            if interaction_id not in before
            or any(row[column] != before[interaction_id][column] for column in IDENTIFYING_COLUMNS)
        }
        new_rows = (
            (self.source, interaction_id, recorded_at[interaction_id], *row.values())
            for interaction_id, row in rows.items()
            if interaction_id not in before
        )
        insert_columns = ["source", "interaction_id", "known_at", *next(iter(rows.values()))]
        engine.insert_many(connection, interactions, insert_columns, new_rows)
        for interaction_id in rows.keys() & before.keys():
            is_same = (interactions.c.source == self.source) & (interactions.c.interaction_id == interaction_id)
            time_update = {"known_at": recorded_at[interaction_id]} if interaction_id in recorded_at else {}
            connection.execute(interactions.update().where(is_same).values(rows[interaction_id] | time_update))
        change_counters.increment_counters(connection, {INTERACTIONS_COUNTER})

    def _with_answered_at(
        self, entry: dict[str, Any], previous: dict[str, Any] | None, arrived_at: int
    ) -> dict[str, Any]:
        """The entry with the time of the answer, so that an earlier cutoff still counts the complaint as open.

        That is the time at which the new status was loaded. An interaction already answered at its first load gets
        none.
        """
        attribute_values, is_answered = entry["attributes"], entry["status"] in ANSWERED_STATUSES
        if ANSWERED_AT_ATTRIBUTE in self.attribute_columns or is_answered == (
            ANSWERED_AT_ATTRIBUTE in attribute_values
        ):
            return entry
        if not is_answered:
            return {
                **entry,
                "attributes": {
                    name: value for name, value in attribute_values.items() if name != ANSWERED_AT_ATTRIBUTE
                },
            }
        if previous is None or previous["status"] in ANSWERED_STATUSES:
            return entry
        answered_since = from_micros(max(arrived_at, entry["happened_at"]))
        return {**entry, "attributes": {**attribute_values, ANSWERED_AT_ATTRIBUTE: answered_since.isoformat()}}

    def _encrypt_row(self, entry: dict[str, Any], wrapped: dict[int, bytes]) -> dict[str, Any]:
        key, sealed_fields, attribute_values = entry["customer_key"], entry["sealed_fields"], entry["attributes"]
        return {
            **{name: entry[name] for name in STORED_COLUMNS},
            "customer_key": key,
            "sealed_text": self.cipher.encrypt(key, wrapped[key], sealed_fields, ENCRYPTION_PURPOSE)
            if sealed_fields
            else None,
            "attributes": json.dumps(attribute_values, ensure_ascii=False, sort_keys=True)
            if attribute_values
            else None,
        }

    def _get_or_create_keys(self, connection: sa.Connection, keys: set[int]) -> dict[int, bytes]:
        """The wrapped key of each of these customers; created where there is none."""
        query = sa.select(person_keys.c.customer_key, person_keys.c.wrapped)
        existing = dict(connection.execute(query.where(person_keys.c.customer_key.in_(list(keys)))).tuples().all())
        new_keys = {key: self.cipher.new_wrapped_key(key) for key in sorted(keys - existing.keys())}
        rows = ((key, wrapping, self.cipher.key_fingerprint) for key, wrapping in new_keys.items())
        engine.insert_many(connection, person_keys, ["customer_key", "wrapped", "wrapped_by"], rows)
        return existing | new_keys


RECORD_KIND = RecordKind(
    name="interactions",
    required=("interaction_id", "customer_id", "happened_at"),
    columns=COLUMNS,
    key=("interaction_id",),
    clear_text_columns=CLEAR_TEXT_COLUMNS,
    checks=_checks,
    load=_load,
    validate=_reject_unknown_customers,
    is_partial=True,
)
