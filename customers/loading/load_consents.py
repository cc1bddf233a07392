"""Loads record kind `consents`: statements of customers per purpose, stored once and never changed."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from customers.database import change_counters, engine
from customers.database.schema import consents
from customers.database.writes import RowCounts, TransactionFactory
from customers.ledger import refresh_queue
from customers.loading import load_customers, validation
from customers.loading.connectors.files import Records
from customers.loading.record_kind import RecordKind
from customers.loading.sql_text import quote_identifier
from customers.loading.validation import ColumnCheck
from customers.privacy import consents as privacy_consents
from customers.shop.settings import CONSENT_PURPOSES, CONSENT_STATES, Shop
from customers.shop.timestamps import to_micros

COLUMNS = ("customer_id", "purpose", "state", "at", "source", "wording")
# Clocks of two machines differ; a consent further in the future than this is rejected.
CLOCK_TOLERANCE = timedelta(minutes=5)
BATCH_SIZE = 5_000


def _checks(shop: Shop) -> list[ColumnCheck]:
    latest = to_micros(datetime.now(UTC) + CLOCK_TOLERANCE)
    return [
        validation.identifier("customer_id"),
        _require_value(validation.choice("purpose", CONSENT_PURPOSES)),
        _require_value(validation.choice("state", CONSENT_STATES)),
        validation.past_instant("at", shop.timezone, latest=latest, required=True),
        # Part of the unique key of a statement, so it is never null.
        ColumnCheck("source", "coalesce(source, '')", validation.reference("source").rejections),
        validation.any_text("wording"),
    ]


def _require_value(check: ColumnCheck) -> ColumnCheck:
    return ColumnCheck(
        check.name, check.value, ((f"{check.name} is null", f"{check.name} is empty"), *check.rejections)
    )


def _load(shop: Shop, source: str, records: Records, open_transaction: TransactionFactory) -> RowCounts:
    """Insert new statements; a customer id without any other record becomes a customer of stage prospect."""
    cursor = records.connection.execute(
        f"select {', '.join(map(quote_identifier, COLUMNS))} from checked "
        "where reason is null and not is_repeat order by 1, 4"
    )
    counts = RowCounts()
    while rows := cursor.fetchmany(BATCH_SIZE):
        with open_transaction() as connection:
            counts += _insert_statements(shop, connection, source, rows, records.changed_customers)
    return counts


def _insert_statements(
    shop: Shop, connection: sa.Connection, source: str, rows: list[tuple], changed_customers: set[int] | None
) -> RowCounts:
    customer_ids = list(dict.fromkeys(row[0] for row in rows))
    keys = load_customers.get_or_create_customers(
        shop, lambda: nullcontext(connection), source, customer_ids, stage="prospect"
    )
    wordings = {
        (keys[name], purpose, at, statement_source or source, state): wording
        for name, purpose, state, at, statement_source, wording in rows
        if name in keys
    }
    columns = [consents.c[name] for name in ("customer_key", "purpose", "at", "source", "state")]
    query = sa.select(*columns).where(consents.c.customer_key.in_(list(keys.values())))
    existing = set(connection.execute(query).tuples())
    new_statements = [statement for statement in wordings if statement not in existing]
    recorded_at = to_micros(datetime.now(UTC))
    values = ((*statement, wordings[statement], recorded_at) for statement in new_statements)
    insert_columns = ["customer_key", "purpose", "at", "source", "state", "wording", "known_at"]
    engine.insert_many(connection, consents, insert_columns, values)
    if new_statements:
        change_counters.increment_counters(connection, {change_counters.CONSENTS_COUNTER})
    if changed_customers is not None:
        changed_customers |= {key for key, *_ in new_statements}
        refresh_queue.enqueue(
            connection, {key for key, purpose, *_ in new_statements if purpose in privacy_consents.PROFILING_PURPOSES}
        )
    return RowCounts(inserted=len(new_statements), unchanged=len(rows) - len(new_statements))


RECORD_KIND = RecordKind(
    name="consents",
    required=("customer_id", "purpose", "state", "at"),
    columns=COLUMNS,
    key=("customer_id", "purpose", "at", "state", "source"),
    clear_text_columns=("customer_id", "purpose", "state", "at", "source"),
    checks=_checks,
    load=_load,
)
