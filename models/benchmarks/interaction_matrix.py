"""Purchase days of customers and products before a cutoff, as sparse matrices for methods that count purchases."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class InteractionMatrix:
    """Purchase days before a cutoff: one entry per customer, product and day, customers in ascending order.

    `customers` (n_customers,) and `products` (n_products,) are ascending keys. `rows` and `columns` are positions in
    them and `ages` the days before the cutoff (1 is the day before it), each (n_entries,).
    """

    customers: Ints
    products: Ints
    rows: Ints
    columns: Ints
    ages: Ints

    @classmethod
    def from_purchase_days(cls, days: pd.DataFrame, cutoff: pd.Timestamp) -> Self:
        """Build from columns customer_key, product_key and day (midnight, no zone), all before the cutoff's day."""
        ages = (cutoff - days["day"]).dt.days.to_numpy(np.int64)
        customers, rows = np.unique(days["customer_key"].to_numpy(np.int64), return_inverse=True)
        products, columns = np.unique(days["product_key"].to_numpy(np.int64), return_inverse=True)
        order = np.lexsort((columns, ages, rows))
        return cls(customers, products, rows[order], columns[order], ages[order])

    def matrix(self, weights: Floats | None = None) -> scipy.sparse.csr_matrix:
        """Sum the entries into (n_customers, n_products): purchase days, or the sum of their `weights` (n_entries,)."""
        values = np.ones(len(self.rows)) if weights is None else weights
        shape = (len(self.customers), len(self.products))
        interactions = scipy.sparse.csr_matrix((values, (self.rows, self.columns)), shape=shape)
        interactions.sum_duplicates()
        return interactions

    @cached_property
    def owned(self) -> scipy.sparse.csr_matrix:
        """1 where the customer ever bought the product: (n_customers, n_products)."""
        interactions = self.matrix()
        interactions.data = np.ones_like(interactions.data)
        return interactions

    @cached_property
    def trips(self) -> Ints:
        """Number of each entry's purchase day among those of its customer, 0 for the latest: (n_entries,)."""
        is_new_trip = (np.diff(self.rows, prepend=-1) != 0) | (np.diff(self.ages, prepend=-1) != 0)
        count = np.cumsum(is_new_trip) - 1
        first = np.searchsorted(self.rows, np.arange(len(self.customers)))
        return np.asarray(count - count[first][self.rows], np.int64)

    @cached_property
    def trip_counts(self) -> Ints:
        """Number of purchase days of each customer: (n_customers,)."""
        return np.maximum.reduceat(self.trips, np.searchsorted(self.rows, np.arange(len(self.customers)))) + 1

    def popularity(self, days: int | None = None) -> Floats:
        """Purchase days of each product over all customers, ever or in the last `days`: (n_products,)."""
        is_counted = slice(None) if days is None else self.ages <= days
        return np.bincount(self.columns[is_counted], minlength=len(self.products)).astype(np.float64)
