"""Kinds: the kinds of record a shop can load, each with its columns, its checks and where it goes."""

from collections.abc import Callable
from dataclasses import dataclass

from customers.database.writes import RowCounts, TransactionFactory
from customers.loading.connectors.files import Records
from customers.loading.validation import ColumnCheck
from customers.shop.settings import Shop


def no_further_validation(shop: Shop, source: str, records: Records) -> None:
    """The judge of a kind whose records say by themselves whether they are acceptable."""


@dataclass(frozen=True, slots=True)
class RecordKind:
    """A kind of record: `shown` are the columns that a rejects file may repeat in clear.

    `checks` look at a row alone. `judge` may set the reason of further rows in table `checked`, after
    looking at what the shop remembers; it runs before repeated rows are told apart.
    `partial`: a column that is not said stays what it was.
    """

    name: str
    required: tuple[str, ...]
    columns: tuple[str, ...]
    key: tuple[str, ...]
    clear_text_columns: tuple[str, ...]
    checks: Callable[[Shop], list[ColumnCheck]]
    load: Callable[[Shop, str, Records, TransactionFactory], RowCounts]
    validate: Callable[[Shop, str, Records], None] = no_further_validation
    is_partial: bool = False
