"""Favourite categories that customers have stated, for recommendations before their first purchases."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa

from customers.database import engine
from customers.database.schema import attributes
from customers.people import lookup
from customers.shop.settings import Shop

#: Matches the field names of different systems: favourite_categories, "favourite category", categories.
_NAME_PATTERN = re.compile("categor", re.IGNORECASE)


def load_favourite_categories(shop: Shop, keys: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """The favourite categories of these customers, in lower case and in the stated order; only customers with any.

    Read from the customer's preferences and attributes, as a list or separated by semicolons or commas.
    """
    customer_keys = sorted({int(key) for key in keys})
    categories: dict[int, list[str]] = {}
    for key, fields in lookup.load_personal_fields(shop, customer_keys).items() if customer_keys else ():
        preferences = fields.get("preferences")
        for name, value in preferences.items() if isinstance(preferences, dict) else ():
            categories.setdefault(key, []).extend(_parse_categories(name, value))
    for key, name, value in _select_attributes(shop, customer_keys):
        categories.setdefault(key, []).extend(_parse_categories(name, value))
    return {key: tuple(dict.fromkeys(names)) for key, names in categories.items() if names}


def _parse_categories(name: str, value: Any) -> list[str]:
    if not _NAME_PATTERN.search(name) or value is None:
        return []
    parts = value if isinstance(value, list) else re.split(r"[;,]", str(value).strip("[]"))
    return [word for part in parts if (word := str(part).strip(" \"'").casefold())]


def _select_attributes(shop: Shop, keys: list[int]) -> Iterator[tuple[int, str, str]]:
    columns = attributes.c
    with engine.read_transaction(shop) as connection:
        for chunk in engine.chunks(keys, 5_000):
            query = sa.select(columns.customer_key, columns.name, columns.value).order_by(columns.name)
            yield from connection.execute(query.where(columns.customer_key.in_(chunk))).tuples().all()
