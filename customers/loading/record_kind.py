"""The description of a record kind that a shop can load: its columns, its validation and its loader."""

from collections.abc import Callable
from dataclasses import dataclass

from customers.database.writes import RowCounts, TransactionFactory
from customers.loading.connectors.files import Records
from customers.loading.validation import ColumnCheck
from customers.shop.settings import Shop


def no_further_validation(shop: Shop, source: str, records: Records) -> None:
    """No validation beyond the checks of single rows."""


@dataclass(frozen=True, slots=True)
class RecordKind:
    """One record kind; `clear_text_columns` are those that a rejects file may repeat in clear.

    `checks` validate a row by itself. `validate` may set the reason of further rows in table `checked` by looking at
    the database; it runs before duplicate rows are marked. With `is_partial`, a missing column keeps its stored value.
    With `may_use_disk`, rows that do not fit in memory may lie in the home while they are sorted: the database holds
    the same values in clear.
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
    may_use_disk: bool = False
