"""Exports all data about one customer (right of access, GDPR art. 15)."""

import json
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from customers.database import engine, ids, schema
from customers.database.schema import identities
from customers.ledger import interactions
from customers.privacy import consents
from customers.security import encryption
from customers.shop import money
from customers.shop.settings import Shop
from customers.shop.timestamps import from_micros, from_micros_or_none

#: The field of the export for each table about customers; a test compares this with the schema.
EXPORT_FIELDS = {
    "customers": "customer_id",
    "identities": "ids",
    "person_keys": "sealed_under_own_key",
    "personal": "profile",
    "lookups": "found_by",
    "attributes": "attributes",
    "transactions": "orders",
    "transactions_history": "earlier_versions",
    "interactions": "interactions",
    "consents": "consents",
    "scores": "scores",
    "unrefreshed": "awaits_fresh_scores",
}


def collect_personal_data(connection: sa.Connection, shop: Shop, key: int) -> dict[str, Any]:
    """All data about one customer as JSON values: times in ISO 8601, money as decimal strings with a currency."""
    row = connection.execute(_customer_rows(schema.customers, key)).one()
    export_data = {
        "customer_id": ids.find_ids(connection, schema.identities, [key], "customer")[key],
        "ids": _source_ids(connection, key),
        "stage": row.stage,
        "joined_at": from_micros_or_none(row.joined_at),
        "first_known_at": from_micros(row.made_at),
        "referred_by": row.referred_by,
        "sealed_under_own_key": connection.execute(_customer_rows(schema.person_keys, key)).first() is not None,
        "profile": _personal_fields(connection, shop, key),
        "found_by": sorted(line.kind for line in connection.execute(_customer_rows(schema.lookups, key))),
        "attributes": {line.name: line.value for line in connection.execute(_customer_rows(schema.attributes, key))},
        "orders": _group_orders(_order_lines(connection, schema.transactions, key)),
        "earlier_versions": _order_lines(connection, schema.transactions_history, key),
        "interactions": _interaction_entries(connection, shop, key),
        "consents": consents.read_customer_consents(connection, shop, key),
        "scores": _score_entries(connection, key),
        "awaits_fresh_scores": connection.execute(_customer_rows(schema.unrefreshed, key)).first() is not None,
    }
    return dict(_to_json(export_data))


def _customer_rows(table: sa.Table, key: int) -> sa.Select:
    return table.select().where(table.c.customer_key == key)


def _source_ids(connection: sa.Connection, key: int) -> list[dict[str, str]]:
    query = _customer_rows(schema.identities, key).order_by(schema.identities.c.source)
    return [{"source": row.source, "customer_id": row.customer_id} for row in connection.execute(query)]


def _personal_fields(connection: sa.Connection, shop: Shop, key: int) -> dict[str, Any]:
    wrapped = connection.execute(_customer_rows(schema.person_keys, key)).first()
    sealed = connection.execute(_customer_rows(schema.personal, key)).first()
    if wrapped is None or sealed is None:
        return {}
    return encryption.get_cipher(shop).decrypt(key, wrapped.wrapped, sealed.sealed) | {
        "changed_at": from_micros(sealed.changed_at)
    }


def _order_lines(connection: sa.Connection, table: sa.Table, key: int) -> list[dict[str, Any]]:
    """Order lines with the field names of the load files, sorted by time of sale."""
    product = schema.products.c
    query = sa.select(table, product.product_id, product.name)
    query = query.outerjoin(schema.products, product.product_key == table.c.product_key)
    query = query.where(table.c.customer_key == key).order_by(table.c.sold_at, table.c.order_id, table.c.line_id)
    return [_line_entry(row) for row in connection.execute(query).mappings()]


def _line_entry(row: sa.RowMapping) -> dict[str, Any]:
    text_columns = ("source", "order_id", "line_id", "product_id", "name", "quantity", "kind", "store_id", "channel")
    line = {name: row[name] for name in (*text_columns, "currency", "coupon_id", "campaign_id")}
    for name in ("amount", "discount"):
        minor = row[f"{name}_minor"]
        line[name] = None if minor is None else money.format_amount(minor, row["currency"])
    times = ("sold_at", "known_at", "superseded_at")
    return line | {name: from_micros(row[name]) for name in times if name in row}


def _group_orders(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    orders: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        order_id = line.pop("source"), line.pop("order_id")
        orders.setdefault(order_id, {"source": order_id[0], "order_id": order_id[1], "lines": []})["lines"].append(line)
    return list(orders.values())


def _interaction_entries(connection: sa.Connection, shop: Shop, key: int) -> list[dict[str, Any]]:
    rows = list(
        connection.execute(_customer_rows(schema.interactions, key).order_by(schema.interactions.c.happened_at))
    )
    texts = interactions.decrypt_texts(connection, shop, key, rows)
    return [_interaction_entry(row) | text for row, text in zip(rows, texts, strict=True)]


def _interaction_entry(row: sa.Row) -> dict[str, Any]:
    excluded_columns = ("customer_key", "sealed_text", "content", "attributes", "happened_at", "known_at")
    columns = {name: value for name, value in row._mapping.items() if name not in excluded_columns}
    times = {"happened_at": from_micros(row.happened_at), "known_at": from_micros(row.known_at)}
    return columns | times | {"attributes": json.loads(row.attributes or "{}")}


def _score_entries(connection: sa.Connection, key: int) -> list[dict[str, Any]]:
    """Every stored score of the customer with its stored detail."""
    run, score = schema.score_runs.c, schema.scores.c
    query = sa.select(run.model, run.version, run.as_of, score.value, score.detail, score.told_at)
    query = query.join(schema.scores, score.run_id == run.run_id).where(score.customer_key == key)
    return [
        {
            "model": row.model,
            "version": row.version,
            "as_of": from_micros(row.as_of),
            "value": row.value,
            "detail": json.loads(row.detail or "{}"),
            "told_at": from_micros(row.told_at),
        }
        for row in connection.execute(query.order_by(run.as_of, run.model, score.told_at))
    ]


def _to_json(value: Any) -> Any:
    """The value with datetimes as ISO 8601 texts."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dict):
        return {name: _to_json(each) for name, each in value.items()}
    return [_to_json(each) for each in value] if isinstance(value, list) else value


def export_customer(shop: Shop, customer_id: str) -> dict[str, Any] | None:
    """All data about a customer as JSON values (see `collect_personal_data`); None for an unknown id."""
    with engine.read_transaction(shop) as connection:
        key = ids.find_keys(connection, identities, [customer_id], "customer").get(customer_id)
        return None if key is None else collect_personal_data(connection, shop, key)
