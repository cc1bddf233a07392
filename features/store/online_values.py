"""The stored values of the online stores, by customer and view: read, written and deleted without importing Feast.

The tables and keys are those of Feast, whose own stores in this folder write through the same statements.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One customer's values of a view: `values` are Feast's messages by feature, `event_us` microseconds since 1970."""

    event_us: int
    values: dict[str, bytes]


class OnlineStoreUnavailable(Exception):
    """The online store does not answer; the features of the last nightly snapshot remain."""


class OnlineValues(ABC):
    """The values of one online store; safe to use from several threads.

    `outages` are the errors of its driver that say that the store does not answer.
    """

    outages: tuple[type[Exception], ...] = ()

    @abstractmethod
    def read(self, view: str, keys: Sequence[int], features: Sequence[str]) -> dict[int, StoredRow]:
        """The stored rows of these customers by key; one who is not in the store is left out."""

    @abstractmethod
    def write(self, view: str, rows: Iterable[tuple[int, StoredRow]]) -> None:
        """Write each customer's row unless the stored one is newer; equal times are written."""

    def write_views(self, rows_by_view: Mapping[str, Mapping[int, StoredRow]]) -> None:
        """As `write`, for the rows by customer of several views."""
        for view, rows in rows_by_view.items():
            self.write(view, rows.items())

    @abstractmethod
    def delete(self, views: Collection[str], keys: Sequence[int]) -> None:
        """Delete every value of these customers in these views."""
