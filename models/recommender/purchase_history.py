"""Purchase history: everything that each customer ever bought, as flat arrays, and purchases in the window after it."""

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
    """What customers have bought, as flat arrays: in entry i, the customer of row `rows[i]` bought `products[i]`.

    `customers` are the keys of the rows (n_customers,). `rows`, `products` and each of `columns` are (n_entries,); the
    entries of row r are bounds[r] to bounds[r + 1].
    """

    customers: Ints
    rows: Ints
    products: Ints
    bounds: Ints
    columns: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.customers)

    def weights(self, half_life: int) -> Floats:
        """Purchase days of every entry, each decayed by half for every half_life (days) of age: (n_entries,)."""
        return self.columns[weight_column(half_life)]

    def customer_products(self, row: int) -> Ints:
        """The products of one customer: (n_products,)."""
        return self.products[self.bounds[row] : self.bounds[row + 1]]


def weight_column(half_life: int) -> str:
    """The column that holds purchase days decayed with this half-life (days)."""
    return f"weights_{half_life}d"


def half_lives(frame: pd.DataFrame) -> tuple[int, ...]:
    """Half-lives (days), ascending, of the frame's columns weights_<days>d. Raises MissingFeatures without any."""
    names = frame.columns.astype(str).str.extract(r"^weights_(\d+)d$")[0].dropna()
    if names.empty:
        raise base.MissingFeatures("the frame lacks columns weights_<days>d; compute the product history features")
    return tuple(sorted(int(days) for days in names))


def read(frame: pd.DataFrame, columns: Iterable[str]) -> PurchaseHistory:
    """Flatten the frame's array columns; a customer without an array has bought nothing.

    frame: a row per customer, with columns customer_key, product_keys and the given ones, an array in each cell.
    Raises MissingFeatures where a column is absent, or where its arrays do not have the lengths of product_keys.
    """
    columns = sorted(columns)
    base.require_columns(frame, ["customer_key", "product_keys", *columns])
    products, sizes = _flatten(frame["product_keys"])
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    flat = {}
    for name in columns:
        values, lengths = _flatten(frame[name])
        if not np.array_equal(lengths, sizes):
            raise base.MissingFeatures(
                f"{name} is not aligned with product_keys; compute the product history features again"
            )
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
    """What customers bought in the window after the cutoff.

    `is_observed` is (n_customers,); `rows` and `products` are (n_purchases,).
    """

    is_observed: Flags
    rows: Ints
    products: Ints

    def contains(self, rows: Ints, products: Ints) -> Flags:
        """Whether the customer of each pair bought its product in the window: (n_pairs,)."""
        keys = np.unique(self.products)
        inside = np.isin(products, keys)
        bought_codes = _pair_codes(self.rows, self.products, keys)
        pair_codes = _pair_codes(rows[inside], products[inside], keys)
        is_bought = np.zeros(len(rows), bool)
        is_bought[inside] = pd.Index(pair_codes).isin(bought_codes)  # hashing; numpy's isin would sort both
        return is_bought

    def subset(self, mask: Flags) -> WindowPurchases:
        """The same customers, with only the purchases where mask (n_purchases,) is true."""
        return WindowPurchases(self.is_observed, self.rows[mask], self.products[mask])


def _pair_codes(rows: Ints, products: Ints, keys: Ints) -> Ints:
    return np.asarray(rows * max(len(keys), 1) + np.searchsorted(keys, products))


def customer_batches(frame: pd.DataFrame, batch_size: int = 2_000) -> Iterator[pd.DataFrame]:
    """Yield the frame, a row per customer, in batches: intermediate arrays are ten times as large as a history."""
    for start in range(0, max(len(frame), 1), batch_size):
        yield frame.iloc[start : start + batch_size]


def read_label(label: Sequence[Any] | NDArray[Any] | pd.Series) -> WindowPurchases:
    """Read a label (n_rows,): arrays of product keys bought in the window, empty for none, None where not observed."""
    column = pd.Series(list(label), dtype=object)
    is_observed = np.fromiter((_is_array(cell) for cell in column), bool, len(column))
    products, sizes = _flatten(column)
    return WindowPurchases(is_observed, np.repeat(np.arange(len(column)), sizes), products.astype(np.int64))
