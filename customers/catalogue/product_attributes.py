"""Attributes of all products as arrays: category, department, margin, stock, labels, repurchase delay.

Read from the catalogue once, and again only after a product has changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
import sqlalchemy as sa
from numpy.typing import NDArray

from customers.database import change_counters, engine
from customers.database.schema import products, transactions
from customers.database.version_cache import VersionCache
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: The attribute with a product's labels: a list, or words separated by semicolons.
LABELS_ATTRIBUTE = "labels"
#: Number of keys in one SQL statement.
CHUNK_SIZE = 5_000
#: Number of products read at once.
BATCH_SIZE = 5_000
#: The code of no category and of no department.
NO_CATEGORY = -1


@dataclass(frozen=True)
class ProductAttributes:
    """Arrays of shape (n_products,) in the order of rising `keys`.

    `categories` and `departments` are the codes of `category_names` and `department_names` (in lower case), -1 for
    none. `margin` is (price - cost) / price, NaN where either is unknown. `in_stock` is also true where the stock is
    not counted. `labels` maps a label to the keys of the products that carry it.
    """

    keys: Ints
    categories: Ints
    departments: Ints
    category_names: dict[str, int]
    department_names: dict[str, int]
    margin: Floats
    in_stock: Flags
    labels: dict[str, Ints]

    def row_indices(self, product_keys: Ints) -> Ints:
        """The array index of each product, shape (n,) as `product_keys`; every product in the database has one."""
        return np.searchsorted(self.keys, product_keys)

    def keys_in_categories(self, categories: Iterable[str]) -> Ints:
        """Keys of the products of these categories, shape (n,), rising; names in any case."""
        codes = [self.category_names.get(_normalise_name(name), NO_CATEGORY) for name in categories]
        return self.keys[np.isin(self.categories, [code for code in codes if code != NO_CATEGORY])]

    def keys_with_labels(self, names: Iterable[str]) -> Ints:
        """Keys of the products that carry any of these labels, shape (n,), rising."""
        return np.unique(np.concatenate([_NO_KEYS, *(self.labels[name] for name in names if name in self.labels)]))


@dataclass(frozen=True)
class RepurchaseDelays:
    """Products that are not bought again at once.

    `keys` (rising) and the number of `days` without a new purchase, both of shape (n,); inf for never again.
    """

    keys: Ints
    days: Floats


_NO_KEYS = np.empty(0, np.int64)
_ATTRIBUTES: VersionCache[ProductAttributes] = VersionCache()
_DELAYS: VersionCache[RepurchaseDelays] = VersionCache()


def load_attributes(shop: Shop) -> ProductAttributes:
    """Attributes of all products of the shop now; cached until a product changes."""
    with engine.read_transaction(shop) as connection:
        return read_attributes(connection, shop)


def read_attributes(connection: sa.Connection, shop: Shop) -> ProductAttributes:
    """As `load_attributes`, in a transaction of the caller."""
    version = change_counters.read_catalogue_version(connection)[1]
    return _ATTRIBUTES.get((shop, version), lambda: _read_attributes(connection))


def load_repurchase_delays(shop: Shop) -> RepurchaseDelays:
    """Products not to be recommended to a buyer for some days after a purchase; cached until a product changes."""
    with engine.read_transaction(shop) as connection:
        version = change_counters.read_catalogue_version(connection)[1]
        return _DELAYS.get((shop, version), lambda: _read_delays(connection))


def purchased_pairs(
    shop: Shop, customer_keys: Iterable[int], product_keys: Iterable[int], before: datetime
) -> pd.DataFrame:
    """Distinct pairs of these customers and products with a sale before `before` (exclusive).

    Columns customer_key, product_key (int64).
    """
    lines, wanted_keys = transactions.c, [int(key) for key in product_keys]
    query = sa.select(lines.customer_key, lines.product_key).distinct()
    query = query.where(lines.kind == "sale", lines.quantity > 0, lines.sold_at < to_micros(before))
    with engine.read_transaction(shop) as connection:
        rows = [
            row
            for customer_chunk in engine.chunks([int(key) for key in customer_keys], CHUNK_SIZE)
            for product_chunk in engine.chunks(wanted_keys, CHUNK_SIZE)
            for row in connection.execute(
                query.where(lines.customer_key.in_(customer_chunk), lines.product_key.in_(product_chunk))
            ).tuples()
        ]
    return pd.DataFrame(rows, columns=["customer_key", "product_key"]).astype("int64")


def _read_delays(connection: sa.Connection) -> RepurchaseDelays:
    columns = products.c
    query = sa.select(columns.product_key, columns.repurchase).where(columns.repurchase != "always")
    rows = connection.execute(query.order_by(columns.product_key)).tuples().all()
    days = [
        float("inf") if repurchase == "never" else float(repurchase.partition(":")[2] or 0) for _, repurchase in rows
    ]
    return RepurchaseDelays(np.array([key for key, _ in rows], np.int64), np.array(days, np.float64))


def _read_attributes(connection: sa.Connection) -> ProductAttributes:
    column_names = ("product_key", "category", "department", "price_minor", "cost_minor", "stock", "attributes")
    query = sa.select(*(products.c[name] for name in column_names)).order_by(products.c.product_key)
    numbers: list[Floats] = []
    categories, departments, keys_by_label = _NameCodes(), _NameCodes(), dict[str, list[int]]()
    # In batches, so that a large catalogue leaves no memory behind that only its reading needs.
    for rows in engine.fetch_batches(connection, query, BATCH_SIZE):
        keys, category_names, department_names, *prices_and_stock, attributes = zip(*rows, strict=True)
        categories.add(category_names)
        departments.add(department_names)
        _add_labels(keys_by_label, keys, attributes)
        numbers.append(np.array([keys, *prices_and_stock], np.float64))
    all_keys, price, cost, stock = np.concatenate([np.empty((4, 0)), *numbers], axis=1)
    category, category_codes = categories.sorted_codes()
    department, department_codes = departments.sorted_codes()
    return ProductAttributes(
        all_keys.astype(np.int64),
        category,
        department,
        category_codes,
        department_codes,
        _compute_margin(price, cost),
        ~(stock <= 0),
        {label: np.array(label_keys, np.int64) for label, label_keys in keys_by_label.items()},
    )


class _NameCodes:
    """Codes of names, whatever their case: those of the sorted names, and -1 for no name."""

    def __init__(self) -> None:
        self._first_codes: dict[str, int] = {}
        self._parts: list[Ints] = []

    def add(self, texts: Iterable[str | None]) -> None:
        """Add the next names of the column."""
        codes = self._first_codes
        self._parts.append(np.array([codes.setdefault(_normalise_name(text), len(codes)) for text in texts], np.int64))

    def sorted_codes(self) -> tuple[Ints, dict[str, int]]:
        """The code of each name that was added, (n,), and the codes by name."""
        codes = {name: code for code, name in enumerate(sorted(set(self._first_codes) - {""}))}
        final = np.array([codes.get(name, NO_CATEGORY) for name in self._first_codes], np.int64)
        first = np.concatenate([np.empty(0, np.int64), *self._parts])
        return final[first], codes


def _normalise_name(name: str | None) -> str:
    return (name or "").strip().casefold()


def _compute_margin(price: Floats, cost: Floats) -> Floats:
    has_price = price > 0
    return np.where(has_price, (price - cost) / np.where(has_price, price, 1.0), np.nan)


def _add_labels(keys_by_label: dict[str, list[int]], keys: Iterable[int], attributes: Iterable[str | None]) -> None:
    for key, text in zip(keys, attributes, strict=True):
        if text and LABELS_ATTRIBUTE in text:
            for label in _parse_labels(json.loads(text).get(LABELS_ATTRIBUTE)):
                keys_by_label.setdefault(label, []).append(key)


def _parse_labels(value: object) -> set[str]:
    """Labels from a list, the text of a list, or words separated by semicolons."""
    text = "" if value is None else str(value)
    if not isinstance(value, list) and text.startswith("["):
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            text = text.strip("[]").replace(",", ";")
    parts = value if isinstance(value, list) else text.split(";")
    return {str(part).strip().casefold() for part in parts} - {""}
