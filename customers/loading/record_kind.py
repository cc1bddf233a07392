"""Kinds: the kinds of record a shop can load, each with its columns, its checks and where it goes."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import sqlalchemy as sa

from customers.checks import Check
from customers.shop import Shop
from customers.sources.files import Records

# Opens a write transaction; all of it is kept or nothing.
Writer = Callable[[], AbstractContextManager[sa.Connection]]


@dataclass(frozen=True, slots=True)
class Counts:
    """What a load changed."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    stubs: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.removed + other.removed,
            self.stubs + other.stubs,
        )


def nothing_more(shop: Shop, source: str, records: Records) -> None:
    """The judge of a kind whose records say by themselves whether they are acceptable."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of record: `shown` are the columns that a rejects file may repeat in clear.

    `checks` look at a row alone. `judge` may set the reason of further rows in table `checked`, after
    looking at what the shop remembers; it runs before repeated rows are told apart.
    `partial`: a column that is not said stays what it was.
    """

    name: str
    required: tuple[str, ...]
    columns: tuple[str, ...]
    key: tuple[str, ...]
    shown: tuple[str, ...]
    checks: Callable[[Shop], list[Check]]
    keep: Callable[[Shop, str, Records, Writer], Counts]
    judge: Callable[[Shop, str, Records], None] = nothing_more
    partial: bool = False
