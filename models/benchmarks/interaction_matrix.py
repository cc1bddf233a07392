"""Histories: who bought what on which day before a moment, laid out for methods that count purchases."""

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
    """Who bought what how many days before a moment: a purchase day an entry, of customers in rising order.

    `rows` and `columns` say which customer and product (places in the rising keys), `ages` how many days ago
    (1 for the day before the moment).
    """

    customers: Ints
    products: Ints
    rows: Ints
    columns: Ints
    ages: Ints

    @classmethod
    def from_purchase_days(cls, days: pd.DataFrame, cutoff: pd.Timestamp) -> Self:
        """From customer_key, product_key and day (midnight, no zone), all before the day of the moment."""
        ages = (cutoff - days["day"]).dt.days.to_numpy(np.int64)
        customers, rows = np.unique(days["customer_key"].to_numpy(np.int64), return_inverse=True)
        products, columns = np.unique(days["product_key"].to_numpy(np.int64), return_inverse=True)
        order = np.lexsort((columns, ages, rows))
        return cls(customers, products, rows[order], columns[order], ages[order])

    def matrix(self, weights: Floats | None = None) -> scipy.sparse.csr_matrix:
        """Customers by products: purchase days, or the sum of these weights of theirs."""
        cells = np.ones(len(self.rows)) if weights is None else weights
        shape = (len(self.customers), len(self.products))
        interactions = scipy.sparse.csr_matrix((cells, (self.rows, self.columns)), shape=shape)
        interactions.sum_duplicates()
        return interactions

    @cached_property
    def owned(self) -> scipy.sparse.csr_matrix:
        """Customers by products: whether they ever bought it."""
        interactions = self.matrix()
        interactions.data = np.ones_like(interactions.data)
        return interactions

    @cached_property
    def trips(self) -> Ints:
        """The number of each entry's purchase day among those of its customer, 0 for the last one."""
        is_new_trip = (np.diff(self.rows, prepend=-1) != 0) | (np.diff(self.ages, prepend=-1) != 0)
        count = np.cumsum(is_new_trip) - 1
        first = np.searchsorted(self.rows, np.arange(len(self.customers)))
        return np.asarray(count - count[first][self.rows], np.int64)

    @cached_property
    def trip_counts(self) -> Ints:
        """How many purchase days each customer has."""
        return np.maximum.reduceat(self.trips, np.searchsorted(self.rows, np.arange(len(self.customers)))) + 1

    def popularity(self, days: int | None = None) -> Floats:
        """On how many days of customers each product was bought, ever or in the last `days`."""
        lately = slice(None) if days is None else self.ages <= days
        return np.bincount(self.columns[lately], minlength=len(self.products)).astype(np.float64)
