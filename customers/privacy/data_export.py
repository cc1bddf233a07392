"""Disclosure: everything the shop holds of one person, written out for them to read and take along."""

import json
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from customers import consent, ids, interactions, money, vault
from customers import schema as tables
from customers.instants import from_micros, maybe
from customers.shop import Shop

#: Where each table that speaks of a customer is told; a test holds this list against the schema.
TOLD = {
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


def of(connection: sa.Connection, shop: Shop, key: int) -> dict[str, Any]:
    """The whole of it, ready to be written as JSON: times in ISO 8601, money as decimal strings with a currency."""
    row = connection.execute(_mine(tables.customers, key)).one()
    found = {
        "customer_id": ids.names(connection, tables.identities, [key], "customer")[key],
        "ids": _ids(connection, key),
        "stage": row.stage,
        "joined_at": maybe(row.joined_at),
        "first_known_at": from_micros(row.made_at),
        "referred_by": row.referred_by,
        "sealed_under_own_key": connection.execute(_mine(tables.person_keys, key)).first() is not None,
        "profile": _profile(connection, shop, key),
        "found_by": sorted(line.kind for line in connection.execute(_mine(tables.lookups, key))),
        "attributes": {line.name: line.value for line in connection.execute(_mine(tables.attributes, key))},
        "orders": _orders(_lines(connection, tables.transactions, key)),
        "earlier_versions": _lines(connection, tables.transactions_history, key),
        "interactions": _interactions(connection, shop, key),
        "consents": consent.holding(connection, shop, key),
        "scores": _scores(connection, key),
        "awaits_fresh_scores": connection.execute(_mine(tables.unrefreshed, key)).first() is not None,
    }
    return dict(_plain(found))


def _mine(table: sa.Table, key: int) -> sa.Select:
    return table.select().where(table.c.customer_key == key)


def _ids(connection: sa.Connection, key: int) -> list[dict[str, str]]:
    named = _mine(tables.identities, key).order_by(tables.identities.c.source)
    return [{"source": row.source, "customer_id": row.customer_id} for row in connection.execute(named)]


def _profile(connection: sa.Connection, shop: Shop, key: int) -> dict[str, Any]:
    wrapped = connection.execute(_mine(tables.person_keys, key)).first()
    sealed = connection.execute(_mine(tables.personal, key)).first()
    if wrapped is None or sealed is None:
        return {}
    return vault.of(shop).open(key, wrapped.wrapped, sealed.sealed) | {"changed_at": from_micros(sealed.changed_at)}


def _lines(connection: sa.Connection, table: sa.Table, key: int) -> list[dict[str, Any]]:
    """Lines in the words of the files that brought them, in the order in which they were sold."""
    product = tables.products.c
    query = sa.select(table, product.product_id, product.name)
    query = query.outerjoin(tables.products, product.product_key == table.c.product_key)
    query = query.where(table.c.customer_key == key).order_by(table.c.sold_at, table.c.order_id, table.c.line_id)
    return [_line(row) for row in connection.execute(query).mappings()]


def _line(row: sa.RowMapping) -> dict[str, Any]:
    said = ("source", "order_id", "line_id", "product_id", "name", "quantity", "kind", "store_id", "channel")
    line = {name: row[name] for name in (*said, "currency", "coupon_id", "campaign_id")}
    for name in ("amount", "discount"):
        minor = row[f"{name}_minor"]
        line[name] = None if minor is None else money.text(minor, row["currency"])
    times = ("sold_at", "known_at", "superseded_at")
    return line | {name: from_micros(row[name]) for name in times if name in row}


def _orders(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    orders: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        place = line.pop("source"), line.pop("order_id")
        orders.setdefault(place, {"source": place[0], "order_id": place[1], "lines": []})["lines"].append(line)
    return list(orders.values())


def _interactions(connection: sa.Connection, shop: Shop, key: int) -> list[dict[str, Any]]:
    rows = list(connection.execute(_mine(tables.interactions, key).order_by(tables.interactions.c.happened_at)))
    texts = interactions.opened(connection, shop, key, rows)
    return [_interaction(row) | text for row, text in zip(rows, texts, strict=True)]


def _interaction(row: sa.Row) -> dict[str, Any]:
    unsaid = ("customer_key", "sealed_text", "content", "attributes", "happened_at", "known_at")
    said = {name: value for name, value in row._mapping.items() if name not in unsaid}
    times = {"happened_at": from_micros(row.happened_at), "known_at": from_micros(row.known_at)}
    return said | times | {"attributes": json.loads(row.attributes or "{}")}


def _scores(connection: sa.Connection, key: int) -> list[dict[str, Any]]:
    """What every model ever said, in its own words."""
    run, score = tables.score_runs.c, tables.scores.c
    query = sa.select(run.model, run.version, run.as_of, score.value, score.detail, score.told_at)
    query = query.join(tables.scores, score.run_id == run.run_id).where(score.customer_key == key)
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


def _plain(value: Any) -> Any:
    """As JSON holds it."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
