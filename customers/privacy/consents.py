"""Reads consents: what each customer allows per purpose; without a statement the shop's default applies."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import pandas as pd
import sqlalchemy as sa

from customers.database import bulk_writes, engine
from customers.database.schema import consents, customers
from customers.shop.settings import CONSENT_PURPOSES, CONSENT_STATES, Shop
from customers.shop.timestamps import from_micros, to_micros

# Purposes that decide what may be computed about a customer, not only how they may be contacted.
PROFILING_PURPOSES = ("profiling", "profiling_sensitive")
# Contact on these channels needs a consent; in the store and on the web site no message is sent.
CONSENT_CHANNELS = ("email", "sms", "phone", "post", "app", "social")
CONSENT_FREE_CHANNELS = ("store", "web", "device")
# Above this many customers, reading all statements is faster than selecting those of each customer; a batch of scores
# stays below it, or every batch would read all.
FULL_SCAN_ABOVE = 50_000
# Of two statements with the same time the stricter one holds.
STRICTNESS = sa.case({state: rank for rank, state in enumerate(CONSENT_STATES)}, value=consents.c.state)


def is_allowed_by_default(shop: Shop, purpose: str) -> bool:
    """Whether the shop's default allows this purpose for a customer without a statement."""
    return shop.consent_default[purpose] == "granted"


def allowed_customers(shop: Shop, keys: Iterable[int], purpose: str) -> set[int]:
    """The customers among these who allow this purpose now: by their newest statement, else by the shop's default."""
    customer_keys = {int(key) for key in keys}
    with engine.read_transaction(shop) as connection:
        return _select_allowed(connection, shop, customer_keys, purpose)


def withdrawn_customers(shop: Shop, keys: Iterable[int], purpose: str) -> set[int]:
    """The customers among these who allowed this purpose once, if only by the shop's default, and no longer do."""
    customer_keys = {int(key) for key in keys}
    query = sa.select(consents.c.customer_key).where(consents.c.purpose == purpose).distinct()
    if not is_allowed_by_default(shop, purpose):
        query = query.where(consents.c.state == "granted")
    with engine.read_transaction(shop) as connection:
        once_allowing = set(connection.execute(query).scalars()) & customer_keys
        return once_allowing - _select_allowed(connection, shop, once_allowing, purpose)


def customers_with_statements_since(shop: Shop, recorded_at: datetime) -> set[int]:
    """Customers of whom a statement about profiling was recorded at this time or later."""
    query = sa.select(consents.c.customer_key).where(
        consents.c.purpose.in_(PROFILING_PURPOSES), consents.c.known_at >= to_micros(recorded_at)
    )
    with engine.read_transaction(shop) as connection:
        return set(connection.execute(query.distinct()).scalars())


def filter_allowed(shop: Shop, frame: pd.DataFrame, purpose: str) -> pd.DataFrame:
    """The rows of customers who allow this purpose now, by column customer_key, in their order with a new index."""
    allowed = allowed_customers(shop, frame["customer_key"].unique(), purpose)
    return frame[frame["customer_key"].isin(allowed)].reset_index(drop=True)


def all_allowed_customers(connection: sa.Connection, shop: Shop, purpose: str) -> set[int]:
    """As `allowed_customers` for all customers, inside a transaction of the caller."""
    return _select_allowed(
        connection, shop, set(connection.execute(sa.select(customers.c.customer_key)).scalars()), purpose
    )


def allowed_channels(shop: Shop, keys: Iterable[int]) -> dict[int, list[str]]:
    """The channels on which each of these customers may be contacted, among those that need a consent."""
    customer_keys = [int(key) for key in keys]
    purposes = {f"marketing_{channel}": channel for channel in CONSENT_CHANNELS}
    default_purposes = {purpose for purpose in purposes if is_allowed_by_default(shop, purpose)}
    with engine.read_transaction(shop) as connection:
        statements = _newest_statements(connection, set(customer_keys), list(purposes))
    allowed_purposes = {key: set(default_purposes) for key in customer_keys}
    for key, purpose, state in statements:
        (allowed_purposes[key].add if state == "granted" else allowed_purposes[key].discard)(purpose)
    return {
        key: [purposes[purpose] for purpose in purposes if purpose in allowed_purposes[key]] for key in customer_keys
    }


def load_customer_consents(shop: Shop, key: int) -> list[dict[str, Any]]:
    """The effective consent of a customer, one entry per purpose, each with its statements, newest first."""
    with engine.read_transaction(shop) as connection:
        return read_customer_consents(connection, shop, key)


def read_customer_consents(connection: sa.Connection, shop: Shop, key: int) -> list[dict[str, Any]]:
    """As `load_customer_consents`, inside a transaction of the caller."""
    query = consents.select().where(consents.c.customer_key == key)
    statements: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute(
        query.order_by(consents.c.at.desc(), STRICTNESS.desc(), consents.c.consent_id.desc())
    ):
        statements.setdefault(row.purpose, []).append(_statement_entry(row))
    return [_effective_consent(shop, purpose, statements.get(purpose, [])) for purpose in CONSENT_PURPOSES]


def _select_allowed(connection: sa.Connection, shop: Shop, customer_keys: set[int], purpose: str) -> set[int]:
    statements = _newest_statements(connection, customer_keys, [purpose])
    granting = {key for key, _, state in statements if state == "granted"}
    return (
        (customer_keys - {key for key, *_ in statements}) | granting
        if is_allowed_by_default(shop, purpose)
        else granting
    )


def _effective_consent(shop: Shop, purpose: str, history: list[dict[str, Any]]) -> dict[str, Any]:
    newest = history[0] if history else {"state": shop.consent_default[purpose], "at": None, "source": "default"}
    return {
        "purpose": purpose,
        "state": newest["state"],
        "since": newest["at"],
        "source": newest["source"],
        "history": history,
    }


def _statement_entry(row: sa.Row) -> dict[str, Any]:
    return {
        "state": row.state,
        "at": from_micros(row.at),
        "source": row.source,
        "wording": row.wording,
        "known_at": from_micros(row.known_at),
    }


def _newest_statements(connection: sa.Connection, keys: set[int], purposes: list[str]) -> list[tuple[int, str, str]]:
    """(customer_key, purpose, state) of the newest statement per customer and purpose; only where there is one."""
    order = [consents.c.at.desc(), STRICTNESS.desc()]
    nth = sa.func.row_number().over(partition_by=[consents.c.customer_key, consents.c.purpose], order_by=order)
    query = sa.select(consents.c.customer_key, consents.c.purpose, consents.c.state, nth.label("nth"))
    query = query.where(consents.c.purpose.in_(purposes))
    if len(keys) <= FULL_SCAN_ABOVE:
        query = query.where(bulk_writes.matches_any(connection, consents.c.customer_key, list(keys)))
    ranked = query.subquery()
    rows = connection.execute(sa.select(ranked).where(ranked.c.nth == 1)).tuples()
    return [(key, purpose, state) for key, purpose, state, _ in rows if key in keys]
