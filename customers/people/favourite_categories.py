"""Favourites: the categories that customers have said they like best, before anything is known of what they buy."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa

from customers import database, profiles
from customers.schema import attributes
from customers.shop import Shop

#: Whatever the shop's systems call it: favourite_categories, "favourite category", categories.
_NAMED = re.compile("categor", re.IGNORECASE)


def of(shop: Shop, keys: Iterable[int]) -> dict[int, tuple[str, ...]]:
    """The favourite categories of each of these customers who has named any, in lower case and in their order.

    They stand in the customer's preferences or in an attribute of theirs, as a list or between semicolons.
    """
    asked = sorted({int(key) for key in keys})
    told: dict[int, list[str]] = {}
    for key, fields in profiles.personal_of(shop, asked).items() if asked else ():
        preferences = fields.get("preferences")
        for name, value in preferences.items() if isinstance(preferences, dict) else ():
            told.setdefault(key, []).extend(_words(name, value))
    for key, name, value in _attributes(shop, asked):
        told.setdefault(key, []).extend(_words(name, value))
    return {key: tuple(dict.fromkeys(words)) for key, words in told.items() if words}


def _words(name: str, value: Any) -> list[str]:
    if not _NAMED.search(name) or value is None:
        return []
    parts = value if isinstance(value, list) else re.split(r"[;,]", str(value).strip("[]"))
    return [word for part in parts if (word := str(part).strip(" \"'").casefold())]


def _attributes(shop: Shop, keys: list[int]) -> Iterator[tuple[int, str, str]]:
    columns = attributes.c
    with database.reading(shop) as connection:
        for chunk in database.chunks(keys, 5_000):
            query = sa.select(columns.customer_key, columns.name, columns.value).order_by(columns.name)
            yield from connection.execute(query.where(columns.customer_key.in_(chunk))).tuples().all()
