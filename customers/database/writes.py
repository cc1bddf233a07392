"""Types shared by all writers: how a transaction is opened, and counts of the rows that a load changed."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import sqlalchemy as sa

# Opens a write transaction, which is committed or rolled back as a whole.
TransactionFactory = Callable[[], AbstractContextManager[sa.Connection]]


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Rows inserted, updated, unchanged and removed by a load, and the product stubs that it created."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    stubs: int = 0

    def __add__(self, other: "RowCounts") -> "RowCounts":
        return RowCounts(
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.removed + other.removed,
            self.stubs + other.stubs,
        )
