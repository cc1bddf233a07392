"""Writing rows of a load, and counting what became of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import sqlalchemy as sa

# Opens a write transaction; all of it is kept or nothing.
TransactionFactory = Callable[[], AbstractContextManager[sa.Connection]]


@dataclass(frozen=True, slots=True)
class RowCounts:
    """What a load changed."""

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
