"""The 360-degree view of one customer: profile, orders, interactions, consents (scores are added on floor 3)."""

from typing import Any

import sqlalchemy as sa

from customers.database import engine, ids
from customers.database.schema import attributes, customers, identities, person_keys, personal, products, transactions
from customers.ledger import interactions
from customers.privacy import consents
from customers.security import encryption
from customers.shop import money
from customers.shop.settings import Shop
from customers.shop.timestamps import from_micros, from_micros_or_none

RECENT_ORDERS = 20
RECENT_INTERACTIONS = 50


def load_customer_view(shop: Shop, customer_id: str) -> dict[str, Any] | None:
    """The stored data about a customer, without scores; None for an unknown id.

    Money is a decimal string with a currency; times are aware UTC datetimes.
    """
    with engine.read_transaction(shop) as connection:
        key = ids.find_keys(connection, identities, [customer_id], "customer").get(customer_id)
        if key is None:
            return None
        row = connection.execute(customers.select().where(customers.c.customer_key == key)).one()
        purchases = _purchase_totals(connection, key)
        return {
            "customer_id": ids.find_ids(connection, identities, [key], "customer")[key],
            "ids": _source_ids(connection, key),
            "stage": "customer" if purchases["orders"] else row.stage,
            "joined_at": from_micros_or_none(row.joined_at),
            "referred_by": row.referred_by,
            "profile": _personal_fields(connection, shop, key),
            "attributes": _select_attributes(connection, key),
            "purchases": purchases,
            "orders": _recent_orders(connection, key),
            "interactions": interactions.latest_interactions(connection, shop, key, RECENT_INTERACTIONS),
            "open_complaints": interactions.count_unanswered(connection, key),
            "consents": [
                {name: consent_entry[name] for name in ("purpose", "state", "since", "source")}
                for consent_entry in consents.read_customer_consents(connection, shop, key)
            ],
            "loyalty": None,
            "segments": [],
        }


def _source_ids(connection: sa.Connection, key: int) -> list[dict[str, str]]:
    query = identities.select().where(identities.c.customer_key == key).order_by(identities.c.source)
    return [{"source": row.source, "customer_id": row.customer_id} for row in connection.execute(query)]


def _personal_fields(connection: sa.Connection, shop: Shop, key: int) -> dict[str, Any]:
    query = (
        sa.select(personal.c.sealed, person_keys.c.wrapped)
        .join(person_keys, person_keys.c.customer_key == personal.c.customer_key)
        .where(personal.c.customer_key == key)
    )
    row = connection.execute(query).first()
    return encryption.get_cipher(shop).decrypt(key, row.wrapped, row.sealed) if row else {}


def _select_attributes(connection: sa.Connection, key: int) -> dict[str, str]:
    query = sa.select(attributes.c.name, attributes.c.value).where(attributes.c.customer_key == key)
    return dict(connection.execute(query.order_by(attributes.c.name)).tuples().all())


def _purchase_totals(connection: sa.Connection, key: int) -> dict[str, Any]:
    """Number of orders, times of the first and last one, and the total spent per currency."""
    lines = transactions.c
    is_customer = lines.customer_key == key
    query = sa.select(sa.func.count(lines.order_key.distinct()), sa.func.min(lines.sold_at), sa.func.max(lines.sold_at))
    orders, first, last = connection.execute(query.where(is_customer, lines.kind == "sale")).one()
    spend_query = sa.select(lines.currency, sa.func.sum(lines.amount_minor)).where(is_customer).group_by(lines.currency)
    spent = connection.execute(spend_query.order_by(lines.currency)).tuples()
    return {
        "orders": orders,
        "first_at": from_micros_or_none(first),
        "last_at": from_micros_or_none(last),
        "spent": [
            {"amount": money.format_amount(int(minor), currency), "currency": currency} for currency, minor in spent
        ],
    }


def _recent_orders(connection: sa.Connection, key: int) -> list[dict[str, Any]]:
    """The latest RECENT_ORDERS orders with their lines, newest first."""
    lines = transactions.c
    newest = (
        sa.select(lines.source, lines.order_id, sa.func.max(lines.sold_at).label("at"))
        .where(lines.customer_key == key)
        .group_by(lines.source, lines.order_id)
        .order_by(sa.desc("at"), lines.order_id)
        .limit(RECENT_ORDERS)
        .subquery()
    )
    query = (
        sa.select(transactions, products.c.product_id, products.c.name)
        .join(newest, (newest.c.source == lines.source) & (newest.c.order_id == lines.order_id))
        .outerjoin(products, products.c.product_key == lines.product_key)
        .where(lines.customer_key == key)
        .order_by(newest.c["at"].desc(), lines.order_id, lines.line_id)
    )
    orders: dict[tuple[str, str], dict[str, Any]] = {}
    for row in connection.execute(query):
        order = orders.setdefault((row.source, row.order_id), _order_entry(row))
        order["lines"].append(_line_entry(row))
    return list(orders.values())


def _order_entry(row: sa.Row) -> dict[str, Any]:
    return {
        "order_id": row.order_id,
        "source": row.source,
        "sold_at": from_micros(row.sold_at),
        "store_id": row.store_id,
        "channel": row.channel,
        "lines": [],
    }


def _line_entry(row: sa.Row) -> dict[str, Any]:
    return {
        "product_id": row.product_id,
        "name": row.name,
        "quantity": row.quantity,
        "amount": money.format_amount(row.amount_minor, row.currency),
        "currency": row.currency,
        "kind": row.kind,
    }
