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

from customers.database import change_counters, engine
from customers.database.schema import products, transactions
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: A product is called by these labels if this attribute of it says so: a list, or words between semicolons.
LABELS_ATTRIBUTE = "labels"
#: So many keys are asked for in one statement.
CHUNK_SIZE = 5_000
#: The number of no category, and of no department.
NO_CATEGORY = -1


@dataclass(frozen=True)
class ProductAttributes:
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

    def row_indices(self, product_keys: Ints) -> Ints:
        """The row of each product; every product that was ever sold or named has one."""
        return np.searchsorted(self.keys, product_keys)

    def keys_in_categories(self, categories: Iterable[str]) -> Ints:
        """The keys, rising, of the products of these categories."""
        codes = [self.category_names.get(_normalise_name(name), NO_CATEGORY) for name in categories]
        return self.keys[np.isin(self.categories, [code for code in codes if code != NO_CATEGORY])]

    def keys_with_labels(self, names: Iterable[str]) -> Ints:
        """The keys, rising, of the products that carry any of these labels."""
        return np.unique(np.concatenate([_NO_KEYS, *(self.labels[name] for name in names if name in self.labels)]))


@dataclass(frozen=True)
class RepurchaseDelays:
    """Products that are not bought again at once: their keys, rising, and for how many days; inf for never."""

    keys: Ints
    days: Floats


_NO_KEYS = np.empty(0, np.int64)


def load_attributes(shop: Shop) -> ProductAttributes:
    """What the shop sells now."""
    return _load_attributes_version(shop, _products_version(shop))


def load_repurchase_delays(shop: Shop) -> RepurchaseDelays:
    """What is not to be offered again at once to whoever bought it."""
    return _load_delays_version(shop, _products_version(shop))


def _products_version(shop: Shop) -> int:
    return change_counters.catalogue_version(shop)[1]


def purchased_pairs(
    shop: Shop, customer_keys: Iterable[int], product_keys: Iterable[int], before: datetime
) -> pd.DataFrame:
    """Which of these customers ever bought which of these products before a moment: customer_key, product_key."""
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


@lru_cache(maxsize=4)
def _load_delays_version(shop: Shop, _version: int) -> RepurchaseDelays:
    columns = products.c
    query = sa.select(columns.product_key, columns.repurchase).where(columns.repurchase != "always")
    with engine.read_transaction(shop) as connection:
        rows = connection.execute(query.order_by(columns.product_key)).tuples().all()
    days = [
        float("inf") if repurchase == "never" else float(repurchase.partition(":")[2] or 0) for _, repurchase in rows
    ]
    return RepurchaseDelays(np.array([key for key, _ in rows], np.int64), np.array(days, np.float64))


@lru_cache(maxsize=4)
def _load_attributes_version(shop: Shop, _version: int) -> ProductAttributes:
    column_names = ("product_key", "category", "department", "price_minor", "cost_minor", "stock", "attributes")
    query = sa.select(*(products.c[name] for name in column_names)).order_by(products.c.product_key)
    with engine.read_transaction(shop) as connection:
        rows = connection.execute(query).tuples().all()
    keys, categories, departments, price, cost, stock, attributes = zip(*rows, strict=True) if rows else [()] * 7
    category, category_names = _encode_names(categories)
    department, department_names = _encode_names(departments)
    all_keys = np.array(keys, np.int64)
    return ProductAttributes(
        all_keys, category, department, category_names, department_names,
        _compute_margin(np.array(price, np.float64), np.array(cost, np.float64)),
        ~(np.array(stock, np.float64) <= 0),
        _keys_by_label(all_keys, attributes),
    )  # fmt: skip


def _encode_names(texts: Iterable[str | None]) -> tuple[Ints, dict[str, int]]:
    """Equal words, whatever their capitals, get an equal number; none gets -1."""
    names = [_normalise_name(name) for name in texts]
    codes = {name: code for code, name in enumerate(sorted({*names} - {""}))}
    return np.array([codes.get(name, NO_CATEGORY) for name in names], np.int64), codes


def _normalise_name(name: str | None) -> str:
    return (name or "").strip().casefold()


def _compute_margin(price: Floats, cost: Floats) -> Floats:
    has_price = price > 0
    return np.where(has_price, (price - cost) / np.where(has_price, price, 1.0), np.nan)


def _keys_by_label(keys: Ints, attributes: Iterable[str | None]) -> dict[str, Ints]:
    keys_by_label: dict[str, list[int]] = {}
    for key, text in zip(keys.tolist(), attributes, strict=True):
        if text and LABELS_ATTRIBUTE in text:
            for label in _parse_labels(json.loads(text).get(LABELS_ATTRIBUTE)):
                keys_by_label.setdefault(label, []).append(key)
    return {label: np.array(label_keys, np.int64) for label, label_keys in keys_by_label.items()}


def _parse_labels(value: object) -> set[str]:
    """A list, the text of one, or words between semicolons."""
    text = "" if value is None else str(value)
    if not isinstance(value, list) and text.startswith("["):
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            text = text.strip("[]").replace(",", ";")
    parts = value if isinstance(value, list) else text.split(";")
    return {str(part).strip().casefold() for part in parts} - {""}
