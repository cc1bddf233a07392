"""Finds customers by id, e-mail, phone or name, and reads their personal fields."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from customers.database import engine, ids
from customers.database.schema import identities, lookups, person_keys, personal
from customers.security import encryption
from customers.shop.errors import ShopError
from customers.shop.settings import Shop


def find_keys(shop: Shop, customer_ids: Sequence[str]) -> dict[str, int]:
    """The key of each customer id, written `id` or `source:id`; ids without a customer are left out."""
    with engine.read_transaction(shop) as connection:
        return ids.find_keys(connection, identities, customer_ids, "customer")


def find_ids(shop: Shop, keys: Iterable[int]) -> dict[int, str]:
    """The id of each customer key; `source:id` where two sources use the same id."""
    with engine.read_transaction(shop) as connection:
        return ids.find_ids(connection, identities, keys, "customer")


def find_customers(
    shop: Shop, *, email: str | None = None, phone: str | None = None, name: str | None = None
) -> list[int]:
    """Keys of the customers who match all given criteria, by keyed digests, without decrypting anything.

    Raises ShopError where no criterion is given.
    """
    criteria = {"email": email, "phone": phone, "name": name}
    tokens = [
        encryption.get_cipher(shop).lookup_digest(kind, text)
        for kind, text in criteria.items()
        if text and text.strip()
    ]
    if not tokens:
        raise ShopError("nothing to search for; give an email, a phone or a name")
    with engine.read_transaction(shop) as connection:
        matches = [
            set(connection.execute(sa.select(lookups.c.customer_key).where(lookups.c.token == token)).scalars())
            for token in tokens
        ]
    return sorted(set.intersection(*matches))


def load_personal_fields(shop: Shop, keys: Iterable[int]) -> dict[int, dict[str, Any]]:
    """The decrypted personal fields of these customers; only customers who have any."""
    query = sa.select(personal.c.customer_key, personal.c.sealed, person_keys.c.wrapped).join(
        person_keys, person_keys.c.customer_key == personal.c.customer_key
    )
    with engine.read_transaction(shop) as connection:
        rows = connection.execute(query.where(personal.c.customer_key.in_(list(keys)))).all()
    return {
        row.customer_key: encryption.get_cipher(shop).decrypt(row.customer_key, row.wrapped, row.sealed) for row in rows
    }
