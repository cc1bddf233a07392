"""Profiles: who a customer is, in one view, and how to find them by id, e-mail, phone or name."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from customers import consent, database, ids, interactions, money, vault
from customers.instants import from_micros, maybe
from customers.schema import attributes, customers, identities, lookups, person_keys, personal, products, transactions
from customers.shop import Shop, ShopError

RECENT_ORDERS = 20
RECENT_INTERACTIONS = 50


def keys_of(shop: Shop, customer_ids: Sequence[str]) -> dict[str, int]:
    """The key of each customer id that is known: `id`, or `source:id`."""
    with database.reading(shop) as connection:
        return ids.keys(connection, identities, customer_ids, "customer")


def ids_of(shop: Shop, keys: Iterable[int]) -> dict[int, str]:
    """The id of each customer key; `source:id` where two sources use the same id."""
    with database.reading(shop) as connection:
        return ids.names(connection, identities, keys, "customer")


def find(shop: Shop, *, email: str | None = None, phone: str | None = None, name: str | None = None) -> list[int]:
    """The keys of the customers with this e-mail, phone and name; nothing is opened to find them."""
    asked = {"email": email, "phone": phone, "name": name}
    tokens = [vault.of(shop).token(kind, text) for kind, text in asked.items() if text and text.strip()]
    if not tokens:
        raise ShopError("nothing to search for; give an email, a phone or a name")
    with database.reading(shop) as connection:
        found = [
            set(connection.execute(sa.select(lookups.c.customer_key).where(lookups.c.token == token)).scalars())
            for token in tokens
        ]
    return sorted(set.intersection(*found))


def personal_of(shop: Shop, keys: Iterable[int]) -> dict[int, dict[str, Any]]:
    """The personal fields of each of these customers who has told any."""
    query = sa.select(personal.c.customer_key, personal.c.sealed, person_keys.c.wrapped).join(
        person_keys, person_keys.c.customer_key == personal.c.customer_key
    )
    with database.reading(shop) as connection:
        rows = connection.execute(query.where(personal.c.customer_key.in_(list(keys)))).all()
    return {row.customer_key: vault.of(shop).open(row.customer_key, row.wrapped, row.sealed) for row in rows}


def show(shop: Shop, customer_id: str) -> dict[str, Any] | None:
    """All that the shop remembers of a customer, without scores; None for an id that it does not know.

    Money is a decimal string with a currency; times are aware UTC datetimes.
    """
    with database.reading(shop) as connection:
        key = ids.keys(connection, identities, [customer_id], "customer").get(customer_id)
        if key is None:
            return None
        row = connection.execute(customers.select().where(customers.c.customer_key == key)).one()
        bought = _bought(connection, key)
        return {
            "customer_id": ids.names(connection, identities, [key], "customer")[key],
            "ids": _ids(connection, key),
            "stage": "customer" if bought["orders"] else row.stage,
            "joined_at": maybe(row.joined_at),
            "referred_by": row.referred_by,
            "profile": _personal(connection, shop, key),
            "attributes": _attributes(connection, key),
            "purchases": bought,
            "orders": _orders(connection, key),
            "interactions": interactions.told(connection, shop, key, RECENT_INTERACTIONS),
            "open_complaints": interactions.unanswered(connection, key),
            "consents": [
                {name: held[name] for name in ("purpose", "state", "since", "source")}
                for held in consent.holding(connection, shop, key)
            ],
            "loyalty": None,
            "segments": [],
        }


def _ids(connection: sa.Connection, key: int) -> list[dict[str, str]]:
    query = identities.select().where(identities.c.customer_key == key).order_by(identities.c.source)
    return [{"source": row.source, "customer_id": row.customer_id} for row in connection.execute(query)]


def _personal(connection: sa.Connection, shop: Shop, key: int) -> dict[str, Any]:
    query = (
        sa.select(personal.c.sealed, person_keys.c.wrapped)
        .join(person_keys, person_keys.c.customer_key == personal.c.customer_key)
        .where(personal.c.customer_key == key)
    )
    row = connection.execute(query).first()
    return vault.of(shop).open(key, row.wrapped, row.sealed) if row else {}


def _attributes(connection: sa.Connection, key: int) -> dict[str, str]:
    query = sa.select(attributes.c.name, attributes.c.value).where(attributes.c.customer_key == key)
    return dict(connection.execute(query.order_by(attributes.c.name)).tuples().all())


def _bought(connection: sa.Connection, key: int) -> dict[str, Any]:
    """How many orders, from when to when, and what was paid in each currency."""
    lines = transactions.c
    mine = lines.customer_key == key
    query = sa.select(sa.func.count(lines.order_key.distinct()), sa.func.min(lines.sold_at), sa.func.max(lines.sold_at))
    orders, first, last = connection.execute(query.where(mine, lines.kind == "sale")).one()
    paid = sa.select(lines.currency, sa.func.sum(lines.amount_minor)).where(mine).group_by(lines.currency)
    spent = connection.execute(paid.order_by(lines.currency)).tuples()
    return {
        "orders": orders,
        "first_at": maybe(first),
        "last_at": maybe(last),
        "spent": [{"amount": money.text(int(minor), currency), "currency": currency} for currency, minor in spent],
    }


def _orders(connection: sa.Connection, key: int) -> list[dict[str, Any]]:
    """The latest orders with their lines, the newest first."""
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
        order = orders.setdefault((row.source, row.order_id), _order(row))
        order["lines"].append(_line(row))
    return list(orders.values())


def _order(row: sa.Row) -> dict[str, Any]:
    return {
        "order_id": row.order_id,
        "source": row.source,
        "sold_at": from_micros(row.sold_at),
        "store_id": row.store_id,
        "channel": row.channel,
        "lines": [],
    }


def _line(row: sa.Row) -> dict[str, Any]:
    return {
        "product_id": row.product_id,
        "name": row.name,
        "quantity": row.quantity,
        "amount": money.text(row.amount_minor, row.currency),
        "currency": row.currency,
        "kind": row.kind,
    }
