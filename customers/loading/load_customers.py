"""Loads record kind `customers`: creates customers and updates their personal fields and attributes."""

import json
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from tqdm import tqdm

from customers.database import change_counters, engine
from customers.database.schema import attributes, customers, erasures, identities, lookups, person_keys, personal
from customers.database.writes import RowCounts, TransactionFactory
from customers.loading import validation
from customers.loading.connectors.files import Records
from customers.loading.record_kind import RecordKind
from customers.loading.sql_text import quote_identifier
from customers.loading.validation import ColumnCheck
from customers.privacy import tombstones
from customers.security import encryption
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

PERSONAL_COLUMNS = (
    "given_name",
    "family_name",
    "email",
    "phone",
    "birth_date",
    "gender",
    "address",
    "city",
    "postcode",
    "country",
    "language",
    "preferences",
)
OPEN_COLUMNS = ("joined_at", "stage", "referred_by")
COLUMNS = ("customer_id", *PERSONAL_COLUMNS, *OPEN_COLUMNS)
# A shop's own column whose name matches is encrypted like the standard personal columns.
PERSONAL_NAME_PATTERN = re.compile(r"name|mail|phone|mobile|tel$|address|street|birth|passport|tax_id|ssn|iban|notes?$")
BATCH_SIZE = 5_000
# Keys rise by random steps: they keep the order of creation and cannot be guessed from one another.
MAX_KEY_STEP = 1 << 20


def _checks(shop: Shop) -> list[ColumnCheck]:
    own_checks = {"birth_date": validation.iso_date("birth_date"), "preferences": validation.json_object("preferences")}
    return [
        validation.identifier("customer_id"),
        *(own_checks.get(name) or validation.any_text(name) for name in PERSONAL_COLUMNS),
        validation.instant("joined_at", shop.timezone),
        validation.choice("stage", ("prospect", "customer")),
        validation.any_text("referred_by"),
    ]


def get_or_create_customers(
    shop: Shop, open_transaction: TransactionFactory, source: str, customer_ids: Sequence[str], stage: str = "customer"
) -> dict[str, int]:
    """The key of each of these ids of a source; a new id becomes a customer, the id of an erased one gets no key."""
    with open_transaction() as connection:
        existing = select_keys(connection, source, customer_ids)
        missing = [customer_id for customer_id in customer_ids if customer_id not in existing]
        erased_ids = tombstones.erased_ids(connection, shop, source, missing)
        new_ids = [customer_id for customer_id in missing if customer_id not in erased_ids]
        return existing | _insert_customers(connection, source, dict.fromkeys(new_ids, (stage, None, None)))


def select_keys(connection: sa.Connection, source: str, customer_ids: Sequence[str]) -> dict[str, int]:
    """The key of each of these ids of a source; ids without a customer are left out."""
    query = sa.select(identities.c.customer_id, identities.c.customer_key).where(identities.c.source == source)
    if len(customer_ids) > 2 * BATCH_SIZE:
        wanted_ids = set(customer_ids)
        return {
            customer_id: key for customer_id, key in connection.execute(query).tuples() if customer_id in wanted_ids
        }
    keys: dict[str, int] = {}
    for chunk in engine.chunks(customer_ids, BATCH_SIZE):
        keys.update(connection.execute(query.where(identities.c.customer_id.in_(chunk))).tuples().all())
    return keys


def _insert_customers(
    connection: sa.Connection, source: str, new_customers: dict[str, tuple[str, int | None, str | None]]
) -> dict[str, int]:
    """Insert customers and their ids; `new_customers` maps id to (stage, joined_at, referred_by)."""
    if not new_customers:
        return {}
    # The key of an erased customer is never used again.
    queries = [sa.select(sa.func.max(table.c.customer_key)) for table in (customers, erasures)]
    last_key = max(connection.execute(query).scalar() or 0 for query in queries)
    steps = np.frombuffer(secrets.token_bytes(4 * len(new_customers)), np.uint32).astype(np.int64) % MAX_KEY_STEP + 1
    keys = dict(zip(new_customers, (last_key + np.cumsum(steps)).tolist(), strict=True))
    made_at = to_micros(datetime.now(UTC))
    columns = ["customer_key", "stage", "joined_at", "referred_by", "made_at"]
    rows = ((keys[name], *open_fields, made_at) for name, open_fields in new_customers.items())
    engine.insert_many(connection, customers, columns, rows)
    identity_rows = ((name, source, key) for name, key in keys.items())
    engine.insert_many(connection, identities, ["customer_id", "source", "customer_key"], identity_rows)
    change_counters.increment_counters(connection, {change_counters.CONSENTS_COUNTER})
    return keys


def _load(shop: Shop, source: str, records: Records, open_transaction: TransactionFactory) -> RowCounts:
    extra_columns = [name for name in records.columns if name not in COLUMNS]
    present = [name for name in COLUMNS if name in records.columns]
    sealed_columns = [name for name in present if name in PERSONAL_COLUMNS] + [
        name for name in extra_columns if PERSONAL_NAME_PATTERN.search(name)
    ]
    attribute_columns = [name for name in extra_columns if name not in sealed_columns]
    value_list = ", ".join(f"c.{quote_identifier(name)}" for name in present)
    extra_list = "".join(f", {validation.trimmed(name)}" for name in extra_columns)
    total = records.count("checked", "reason is null and not is_repeat")
    # Sorted by id, not by row, so that keys do not depend on the order of rows in the file.
    cursor = records.connection.execute(
        f"""select {value_list}{extra_list} from checked c
            join (select * exclude ({", ".join(quote_identifier(name) for name in COLUMNS)}) from raw) raw
              using (file_no, row_no)
            where c.reason is null and not c.is_repeat order by c.customer_id"""
    )
    counts = RowCounts()
    loader = _CustomerLoader(shop, source, [*present, *extra_columns], sealed_columns, attribute_columns)
    with tqdm(total=total, unit=" customers", disable=None, leave=False) as bar:
        while rows := cursor.fetchmany(BATCH_SIZE):
            with open_transaction() as connection:
                counts += loader.load_batch(connection, rows, records.changed_customers)
            bar.update(len(rows))
    return counts


class _CustomerLoader:
    """Writes customers in batches; a column of the file replaces the stored value, also where it is empty."""

    def __init__(
        self, shop: Shop, source: str, columns: list[str], sealed_columns: list[str], attribute_columns: list[str]
    ) -> None:
        self.shop, self.cipher, self.source = shop, encryption.get_cipher(shop), source
        self.columns, self.sealed_columns, self.attribute_columns = columns, sealed_columns, attribute_columns

    def load_batch(
        self, connection: sa.Connection, rows: Sequence[tuple], changed_customers: set[int] | None = None
    ) -> RowCounts:
        """Write one batch in the transaction of `connection`."""
        people = {row[0]: dict(zip(self.columns, row, strict=True)) for row in rows}
        existing = select_keys(connection, self.source, list(people))
        # Erased customers were rejected before; these were erased after this load began.
        erased_ids = tombstones.erased_ids(
            connection, self.shop, self.source, [name for name in people if name not in existing]
        )
        people = {name: person for name, person in people.items() if name not in erased_ids}
        new_customers = {
            name: (person.get("stage") or "prospect", person.get("joined_at"), person.get("referred_by"))
            for name, person in people.items()
            if name not in existing
        }
        keys = existing | _insert_customers(connection, self.source, new_customers)
        by_key = {keys[name]: person for name, person in people.items()}
        changed = self._update_open_columns(connection, {existing[name]: people[name] for name in existing})
        changed |= self._update_personal(connection, by_key)
        changed |= self._update_attributes(connection, by_key)
        updated = len(changed - {keys[name] for name in new_customers})
        if changed_customers is not None:
            changed_customers |= changed | {keys[name] for name in new_customers}
        return RowCounts(
            inserted=len(new_customers), updated=updated, unchanged=len(existing) - updated + len(erased_ids)
        )

    def _update_open_columns(self, connection: sa.Connection, people: dict[int, dict[str, Any]]) -> set[int]:
        present = [name for name in OPEN_COLUMNS if name in self.columns]
        changed = set()
        for row in _select_rows(connection, customers, people):
            new_values = {name: people[row.customer_key][name] for name in present}
            # A missing stage keeps the stored one; a customer has bought and never becomes a prospect again.
            if new_values.get("stage", "") is None or row.stage == "customer":
                new_values.pop("stage", None)
            if any(getattr(row, name) != value for name, value in new_values.items()):
                changed.add(row.customer_key)
                connection.execute(
                    customers.update().where(customers.c.customer_key == row.customer_key).values(new_values)
                )
        return changed

    def _update_personal(self, connection: sa.Connection, people: dict[int, dict[str, Any]]) -> set[int]:
        if not self.sealed_columns:
            return set()
        wrapped = {row.customer_key: row.wrapped for row in _select_rows(connection, person_keys, people)}
        before = {
            row.customer_key: self.cipher.decrypt(row.customer_key, wrapped[row.customer_key], row.sealed)
            for row in _select_rows(connection, personal, people)
        }
        after = {key: self._merge_personal(before.get(key, {}), person) for key, person in people.items()}
        changed = {key for key, fields in after.items() if fields != before.get(key, {})}
        new_keys = {key: self.cipher.new_wrapped_key(key) for key in sorted(changed) if key not in wrapped}
        self._write_personal(connection, {key: after[key] for key in sorted(changed)}, wrapped | new_keys, new_keys)
        return changed

    def _merge_personal(self, before: dict[str, Any], person: dict[str, Any]) -> dict[str, Any]:
        new_fields = {name: person[name] for name in self.sealed_columns}
        if new_fields.get("preferences"):
            new_fields["preferences"] = json.loads(new_fields["preferences"])
        return {name: value for name, value in {**before, **new_fields}.items() if value is not None}

    def _write_personal(
        self,
        connection: sa.Connection,
        people: dict[int, dict[str, Any]],
        wrapped: dict[int, bytes],
        new_keys: dict[int, bytes],
    ) -> None:
        key_rows = ((key, wrapping, self.cipher.key_fingerprint) for key, wrapping in new_keys.items())
        engine.insert_many(connection, person_keys, ["customer_key", "wrapped", "wrapped_by"], key_rows)
        _delete_rows(connection, personal, people)
        _delete_rows(connection, lookups, people)
        changed_at = to_micros(datetime.now(UTC))
        sealed_rows = (
            (key, self.cipher.encrypt(key, wrapped[key], fields), changed_at) for key, fields in people.items()
        )
        engine.insert_many(connection, personal, ["customer_key", "sealed", "changed_at"], sealed_rows)
        lookup_rows = (
            (token, key, kind)
            for key, fields in people.items()
            for token, kind in self.cipher.lookup_digests(fields).items()
        )
        engine.insert_many(connection, lookups, ["token", "customer_key", "kind"], lookup_rows)

    def _update_attributes(self, connection: sa.Connection, people: dict[int, dict[str, Any]]) -> set[int]:
        if not self.attribute_columns:
            return set()
        before: dict[int, dict[str, str]] = {}
        for row in _select_rows(connection, attributes, people):
            before.setdefault(row.customer_key, {})[row.name] = row.value
        after = {
            key: {
                name: value
                for name, value in {
                    **before.get(key, {}),
                    **{name: person[name] for name in self.attribute_columns},
                }.items()
                if value is not None
            }
            for key, person in people.items()
        }
        changed = sorted(key for key, values in after.items() if values != before.get(key, {}))
        _delete_rows(connection, attributes, changed)
        rows = ((key, name, value) for key in changed for name, value in after[key].items())
        engine.insert_many(connection, attributes, ["customer_key", "name", "value"], rows)
        return set(changed)


def _select_rows(connection: sa.Connection, table: sa.Table, keys: Sequence[int] | dict[int, Any]) -> list[sa.Row]:
    return list(connection.execute(table.select().where(table.c.customer_key.in_(list(keys)))))


def _delete_rows(connection: sa.Connection, table: sa.Table, keys: Sequence[int] | dict[int, Any]) -> None:
    if keys:
        connection.execute(table.delete().where(table.c.customer_key.in_(list(keys))))


RECORD_KIND = RecordKind(
    name="customers",
    required=("customer_id",),
    columns=COLUMNS,
    key=("customer_id",),
    # No value of a customer's record may be on disk in clear: rejects show line and reason only.
    clear_text_columns=(),
    checks=_checks,
    load=_load,
    is_partial=True,
)
