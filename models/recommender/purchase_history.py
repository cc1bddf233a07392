"""Shelves: everything each customer has ever bought, and the ranked lists that are made from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models import base
from models.arrays import Flags, Floats, Ints

_EMPTY = np.empty(0)


@dataclass(frozen=True)
class PurchaseHistory:
    """What customers have bought, laid end to end: entry i says that row `rows[i]` bought `products[i]`."""

    customers: Ints
    rows: Ints
    products: Ints
    bounds: Ints
    columns: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.customers)

    def weights(self, half_life: int) -> Floats:
        """Purchase days of every entry, each counting half as much for every half-life (days) it is old."""
        return self.columns[weight_column(half_life)]

    def customer_products(self, row: int) -> Ints:
        """The products of one customer."""
        return self.products[self.bounds[row] : self.bounds[row + 1]]


def weight_column(half_life: int) -> str:
    """The column that holds purchase days decayed with this half-life in days."""
    return f"weights_{half_life}d"


def half_lives(frame: pd.DataFrame) -> tuple[int, ...]:
    """The half-lives (days) for which the frame carries weights, shortest first."""
    names = frame.columns.astype(str).str.extract(r"^weights_(\d+)d$")[0].dropna()
    if names.empty:
        raise base.MissingFeatures("the frame lacks weights of decayed purchases; compute the shelf")
    return tuple(sorted(int(days) for days in names))


def read(frame: pd.DataFrame, columns: Iterable[str]) -> PurchaseHistory:
    """Lay the frame's arrays end to end; a customer without an array has bought nothing."""
    columns = sorted(columns)
    base.require_columns(frame, ["customer_key", "product_keys", *columns])
    products, sizes = _flatten(frame["product_keys"])
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    flat = {}
    for name in columns:
        values, lengths = _flatten(frame[name])
        if not np.array_equal(lengths, sizes):
            raise base.MissingFeatures(f"{name} is not aligned with product_keys; compute the shelf again")
        flat[name] = values.astype(np.float64)
    rows = np.repeat(np.arange(len(frame)), sizes)
    return PurchaseHistory(frame["customer_key"].to_numpy(np.int64), rows, products.astype(np.int64), bounds, flat)


def _flatten(column: pd.Series) -> tuple[NDArray[Any], Ints]:
    arrays = [np.asarray(cell) if _is_array(cell) else _EMPTY for cell in column]
    sizes = np.fromiter((len(array) for array in arrays), np.int64, len(arrays))
    return (np.concatenate(arrays) if arrays else _EMPTY), sizes


def _is_array(cell: object) -> bool:
    return isinstance(cell, (np.ndarray, list, tuple))


@dataclass(frozen=True)
class WindowPurchases:
    """What customers bought in the window that followed; `known` says of whom that is known."""

    is_observed: Flags
    rows: Ints
    products: Ints

    def contains(self, rows: Ints, products: Ints) -> Flags:
        """Whether the customer of each pair bought its product in the window."""
        keys = np.unique(self.products)
        inside = np.isin(products, keys)
        bought_codes = _pair_codes(self.rows, self.products, keys)
        pair_codes = _pair_codes(rows[inside], products[inside], keys)
        is_bought = np.zeros(len(rows), bool)
        is_bought[inside] = pd.Index(pair_codes).isin(bought_codes)  # hashing; numpy's isin would sort both
        return is_bought

    def subset(self, keep: Flags) -> WindowPurchases:
        """The same customers, with a part of what they bought."""
        return WindowPurchases(self.is_observed, self.rows[keep], self.products[keep])


def _pair_codes(rows: Ints, products: Ints, keys: Ints) -> Ints:
    return np.asarray(rows * max(len(keys), 1) + np.searchsorted(keys, products))


def customer_batches(frame: pd.DataFrame, batch_size: int = 2_000) -> Iterator[pd.DataFrame]:
    """The frame, so many customers at a time: what is worked out of a shelf is ten times as large as the shelf."""
    for start in range(0, max(len(frame), 1), batch_size):
        yield frame.iloc[start : start + batch_size]


def read_label(label: Sequence[Any] | NDArray[Any] | pd.Series) -> WindowPurchases:
    """Read a label: per row the products bought in the window, empty for none, None for not known."""
    column = pd.Series(list(label), dtype=object)
    is_observed = np.fromiter((_is_array(cell) for cell in column), bool, len(column))
    products, sizes = _flatten(column)
    return WindowPurchases(is_observed, np.repeat(np.arange(len(column)), sizes), products.astype(np.int64))
