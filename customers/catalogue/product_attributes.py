"""Assortment: what each product is, as the shop's rules look at it: its kind, stock, margin, labels, and its wait.

Read from the catalogue once, and again only when a product has changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np
import pandas as pd
import sqlalchemy as sa
from numpy.typing import NDArray

from customers import database, offers
from customers.instants import micros
from customers.schema import products, transactions
from customers.shop import Shop

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: A product is called by these labels if this attribute of it says so: a list, or words between semicolons.
LABELS = "labels"
#: So many keys are asked for in one statement.
MANY = 5_000
#: The number of no category, and of no department.
NO_CATEGORY = -1


@dataclass(frozen=True)
class Assortment:
    """All products by rising key, a row each.

    `categories` and `departments` are numbers into their names, in lower case; -1 for none. `margin` is
    (price - cost) / price, NaN where either is unknown. `labels` gives the keys of the products so called.
    """

    keys: Ints
    categories: Ints
    departments: Ints
    category_names: dict[str, int]
    department_names: dict[str, int]
    margin: Floats
    in_stock: Flags
    labels: dict[str, Ints]

    def places(self, wanted: Ints) -> Ints:
        """The row of each product; every product that was ever sold or named has one."""
        return np.searchsorted(self.keys, wanted)

    def within(self, categories: Iterable[str]) -> Ints:
        """The keys, rising, of the products of these categories."""
        numbers = [self.category_names.get(_word(name), NO_CATEGORY) for name in categories]
        return self.keys[np.isin(self.categories, [number for number in numbers if number != NO_CATEGORY])]

    def called(self, names: Iterable[str]) -> Ints:
        """The keys, rising, of the products that carry any of these labels."""
        return np.unique(np.concatenate([_NO_KEYS, *(self.labels[name] for name in names if name in self.labels)]))


@dataclass(frozen=True)
class Waits:
    """Products that are not bought again at once: their keys, rising, and for how many days; inf for never."""

    keys: Ints
    days: Floats


_NO_KEYS = np.empty(0, np.int64)


def of(shop: Shop) -> Assortment:
    """What the shop sells now."""
    return _read(shop, _edition(shop))


def waits(shop: Shop) -> Waits:
    """What is not to be offered again at once to whoever bought it."""
    return _waits(shop, _edition(shop))


def _edition(shop: Shop) -> int:
    return offers.edition(shop)[1]


def owned(shop: Shop, customer_keys: Iterable[int], product_keys: Iterable[int], before: datetime) -> pd.DataFrame:
    """Which of these customers ever bought which of these products before a moment: customer_key, product_key."""
    lines, wanted = transactions.c, [int(key) for key in product_keys]
    query = sa.select(lines.customer_key, lines.product_key).distinct()
    query = query.where(lines.kind == "sale", lines.quantity > 0, lines.sold_at < micros(before))
    with database.reading(shop) as connection:
        rows = [
            row
            for customers in database.chunks([int(key) for key in customer_keys], MANY)
            for products_ in database.chunks(wanted, MANY)
            for row in connection.execute(
                query.where(lines.customer_key.in_(customers), lines.product_key.in_(products_))
            ).tuples()
        ]
    return pd.DataFrame(rows, columns=["customer_key", "product_key"]).astype("int64")


@lru_cache(maxsize=4)
def _waits(shop: Shop, _edition: int) -> Waits:
    columns = products.c
    query = sa.select(columns.product_key, columns.repurchase).where(columns.repurchase != "always")
    with database.reading(shop) as connection:
        rows = connection.execute(query.order_by(columns.product_key)).tuples().all()
    days = [float("inf") if said == "never" else float(said.partition(":")[2] or 0) for _, said in rows]
    return Waits(np.array([key for key, _ in rows], np.int64), np.array(days, np.float64))


@lru_cache(maxsize=4)
def _read(shop: Shop, _edition: int) -> Assortment:
    names = ("product_key", "category", "department", "price_minor", "cost_minor", "stock", "attributes")
    query = sa.select(*(products.c[name] for name in names)).order_by(products.c.product_key)
    with database.reading(shop) as connection:
        rows = connection.execute(query).tuples().all()
    keys, categories, departments, price, cost, stock, attributes = zip(*rows, strict=True) if rows else [()] * 7
    category, category_names = _numbered(categories)
    department, department_names = _numbered(departments)
    all_keys = np.array(keys, np.int64)
    return Assortment(
        all_keys, category, department, category_names, department_names,
        _margin(np.array(price, np.float64), np.array(cost, np.float64)),
        ~(np.array(stock, np.float64) <= 0),
        _labelled(all_keys, attributes),
    )  # fmt: skip


def _numbered(words: Iterable[str | None]) -> tuple[Ints, dict[str, int]]:
    """Equal words, whatever their capitals, get an equal number; none gets -1."""
    said = [_word(word) for word in words]
    names = {word: number for number, word in enumerate(sorted({*said} - {""}))}
    return np.array([names.get(word, NO_CATEGORY) for word in said], np.int64), names


def _word(said: str | None) -> str:
    return (said or "").strip().casefold()


def _margin(price: Floats, cost: Floats) -> Floats:
    sold = price > 0
    return np.where(sold, (price - cost) / np.where(sold, price, 1.0), np.nan)


def _labelled(keys: Ints, attributes: Iterable[str | None]) -> dict[str, Ints]:
    found: dict[str, list[int]] = {}
    for key, text in zip(keys.tolist(), attributes, strict=True):
        if text and LABELS in text:
            for label in _labels(json.loads(text).get(LABELS)):
                found.setdefault(label, []).append(key)
    return {label: np.array(mine, np.int64) for label, mine in found.items()}


def _labels(said: object) -> set[str]:
    """A list, the text of one, or words between semicolons."""
    text = "" if said is None else str(said)
    if not isinstance(said, list) and text.startswith("["):
        try:
            said = json.loads(text)
        except json.JSONDecodeError:
            text = text.strip("[]").replace(",", ";")
    parts = said if isinstance(said, list) else text.split(";")
    return {str(part).strip().casefold() for part in parts} - {""}
