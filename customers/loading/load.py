"""Loads records from files or API requests: validates them, writes the valid ones, rejects others with a reason."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import sqlalchemy as sa

from customers.database import engine
from customers.database.writes import RowCounts, TransactionFactory
from customers.loading import (
    disk_space,
    erased_filter,
    load_consents,
    load_customers,
    load_interactions,
    load_offers,
    load_products,
    load_transactions,
    rejects,
    validation,
)
from customers.loading.connectors import files, json_records
from customers.loading.connectors.files import Records
from customers.loading.record_kind import RecordKind
from customers.loading.sql_text import quote_identifier
from customers.shop.errors import ShopError
from customers.shop.settings import Shop

# In this order, where a shop loads several: records may refer to those of the kinds before them.
RECORD_KINDS: dict[str, RecordKind] = {
    loader.RECORD_KIND.name: loader.RECORD_KIND
    for loader in (load_customers, load_products, load_transactions, load_offers, load_interactions, load_consents)
}
MAX_RECORDS = 1_000


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Counts of the rows of one load of files; read = inserted + updated + unchanged + rejected."""

    kind: str
    read: int
    inserted: int
    updated: int
    unchanged: int
    rejected: int
    rejects_file: str | None
    seconds: float
    reasons: dict[str, int] = field(default_factory=dict)
    removed: int = 0
    stubs: int = 0

    @property
    def is_all_rejected(self) -> bool:
        """Whether there were rows and every one was rejected."""
        return self.read > 0 and self.rejected == self.read


@dataclass(frozen=True, slots=True)
class IngestResult:
    """Counts of the records of one API request; `errors` has the index (from 0) and reason of each rejected record."""

    kind: str
    read: int
    inserted: int
    updated: int
    unchanged: int
    rejected: int
    errors: list[dict[str, Any]]
    customer_keys: list[int]
    removed: int = 0
    stubs: int = 0

    @property
    def is_all_rejected(self) -> bool:
        """Whether there were records and every one was rejected."""
        return self.read > 0 and self.rejected == self.read


def load_files(
    shop: Shop,
    kind: str,
    paths: Sequence[Path | str],
    *,
    source: str = "files",
    mapping: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> LoadResult:
    """Load files of one record kind; loading the same files again changes nothing.

    `mapping` gives the file's own column for one of ours. A dry run does everything and then rolls it back.
    """
    started = time.monotonic()
    record_kind = _find_kind(kind)
    with ExitStack() as stack:
        folder = stack.enter_context(disk_space.temporary_folder(shop.home)) if record_kind.may_use_disk else None
        records = stack.enter_context(
            files.read_files(paths, required=record_kind.required, mapping=mapping, disk_folder=folder)
        )
        _validate(shop, record_kind, source, records)
        reasons = rejects.count_reasons(records)
        rejected = sum(reasons.values())
        clear_text_columns = [name for name in record_kind.clear_text_columns if name in records.columns]
        path = rejects.write_rejects(records, shop.home / "rejects", kind, clear_text_columns) if rejected else None
        duplicates = records.count("checked", "is_repeat")
        with _transaction_factory(shop, dry_run) as open_transaction:
            counts = record_kind.load(shop, source, records, open_transaction)
        return LoadResult(
            kind=kind,
            read=records.count("raw") + records.count("broken"),
            inserted=counts.inserted,
            updated=counts.updated,
            unchanged=counts.unchanged + duplicates,
            rejected=rejected,
            rejects_file=str(path) if path else None,
            seconds=round(time.monotonic() - started, 3),
            reasons=reasons,
            removed=counts.removed,
            stubs=counts.stubs,
        )


def ingest_records(shop: Shop, kind: str, records: Sequence[Any], *, source: str = "files") -> IngestResult:
    """Load up to 1,000 records of one kind from an API request, in one transaction.

    Validation is that of `load_files`. When it returns, the counted rows are committed; `customer_keys` are the
    customers for whom something changed. A field that a record lacks keeps its stored value, where the kind is partial.
    Raises ShopError for more than 1,000 records or an unknown kind.
    """
    record_kind = _find_kind(kind)
    if len(records) > MAX_RECORDS:
        raise ShopError(f"{len(records)} records at once are too many; send at most {MAX_RECORDS:,}")
    with _single_transaction(shop) as open_transaction:
        return _ingest(shop, record_kind, records, source, open_transaction)


def ingest_together(
    shop: Shop, kind: str, requests: Sequence[Sequence[Any]], *, source: str = "files"
) -> list[IngestResult] | None:
    """Load the records of several API requests in one transaction, as `ingest_records` would one after the other.

    Returns the result of each request, in which `customer_keys` are those of all of them; or None, and nothing is
    stored, where a record is invalid, not new, or in two requests, or where they are more than 1,000.
    """
    record_kind = _find_kind(kind)
    if sum(map(len, requests)) > MAX_RECORDS or _has_common_ids(requests, record_kind.key[0]):
        return None
    records = [record for request in requests for record in request]
    try:
        with _single_transaction(shop) as open_transaction:
            total = _ingest(shop, record_kind, records, source, open_transaction)
            if total.inserted != total.read or total.updated or total.removed or total.stubs:
                raise _NotAllNew
    except _NotAllNew:
        return None
    return [replace(total, read=len(request), inserted=len(request)) for request in requests]


class _NotAllNew(Exception):
    """Rolls back a transaction in which not every record is new."""


def _has_common_ids(requests: Sequence[Sequence[Any]], name: str) -> bool:
    """Whether two requests have a record with the same id, or a record is not an object."""
    ids: set[Any] = set()
    for request in requests:
        if not all(isinstance(record, dict) for record in request):
            return True
        own_ids = {str(record.get(name)) for record in request}
        if not ids.isdisjoint(own_ids):
            return True
        ids |= own_ids
    return False


def _ingest(
    shop: Shop, record_kind: RecordKind, records: Sequence[Any], source: str, open_transaction: TransactionFactory
) -> IngestResult:
    parsed, errors = json_records.parse_records(records)
    counts, duplicates, changed_customers = RowCounts(), 0, set[int]()
    for group in json_records.group_by_fields(parsed) if record_kind.is_partial else [parsed] if parsed else []:
        with json_records.build_records(group, columns=record_kind.columns) as rows:
            rows.changed_customers = changed_customers
            _validate(shop, record_kind, source, rows)
            errors |= _rejection_reasons(rows)
            duplicates += rows.count("checked", "is_repeat")
            counts += record_kind.load(shop, source, rows, open_transaction)
    return IngestResult(
        kind=record_kind.name,
        read=len(records),
        inserted=counts.inserted,
        updated=counts.updated,
        unchanged=counts.unchanged + duplicates,
        rejected=len(errors),
        errors=[{"index": index, "reason": errors[index]} for index in sorted(errors)],
        customer_keys=sorted(changed_customers),
        removed=counts.removed,
        stubs=counts.stubs,
    )


def _rejection_reasons(records: Records) -> dict[int, str]:
    rows = records.connection.execute("select row_no - 1, reason from checked where reason is not null")
    return dict(rows.fetchall())


def _find_kind(name: str) -> RecordKind:
    if name not in RECORD_KINDS:
        raise ShopError(f"unknown kind of record {name!r}; supported are {', '.join(RECORD_KINDS)}")
    return RECORD_KINDS[name]


def _validate(shop: Shop, kind: RecordKind, source: str, records: Records) -> None:
    """Create table `checked`: the texts of `raw` as typed values, and the reason of each row to reject."""
    records.add_columns(kind.columns)
    column_checks = kind.checks(shop)
    query = validation.validation_query(column_checks, kind.columns, records.clean_columns)
    try:
        records.create_table("checked", query)
    except duckdb.Error:
        if not records.in_place:
            raise
        # The library's own message would quote the values, which may be personal.
        raise ShopError("a Parquet file cannot be read to its end; is it whole?") from None
    erased_filter.remove_erased(shop, source, kind, records)
    kind.validate(shop, source, records)
    _mark_duplicates(records, kind, [check.name for check in column_checks])


def _mark_duplicates(records: Records, kind: RecordKind, checked_columns: Sequence[str]) -> None:
    """Of rows with the same id the last one counts; earlier ones are rejected, or marked as repeats where equal."""
    key = ", ".join(f"c.{quote_identifier(name)}" for name in kind.key)
    is_valid = " and ".join(["c.reason is null", *(f"c.{quote_identifier(name)} is not null" for name in kind.key)])
    n_distinct = records.connection.execute(
        f"select count(*) from (select distinct {key} from checked c where {is_valid})"
    ).fetchall()[0][0]
    if n_distinct == records.count("checked c", is_valid):
        return
    key_columns = ", ".join(quote_identifier(name) for name in kind.key)
    values = [f"c.{quote_identifier(name)}" for name in checked_columns]
    values += [f"raw.{quote_identifier(name)}" for name in records.columns if name not in kind.columns]
    records.create_table(
        "repeats",
        f"""select file_no, row_no, content = last_value(content) over w as same from (
              select c.file_no, c.row_no, {key}, hash({", ".join(values)}) as content
              from checked c join raw using (file_no, row_no) where {is_valid})
            window w as (partition by {key_columns} order by file_no, row_no
                         rows between unbounded preceding and unbounded following)
            qualify row_number() over (partition by {key_columns} order by file_no desc, row_no desc) > 1""",
    )
    records.connection.execute(
        f"""update checked set is_repeat = repeats.same,
              reason = case when not repeats.same then 'the same {" and ".join(kind.key)} comes again later' end
            from repeats where checked.file_no = repeats.file_no and checked.row_no = repeats.row_no"""
    )


def _transaction_factory(shop: Shop, dry_run: bool) -> AbstractContextManager[TransactionFactory]:
    """Each write in a transaction of its own, or for a dry run all in one that is rolled back."""
    if not dry_run:
        return nullcontext(lambda: engine.write_transaction(shop))
    return _dry_run(shop)


@contextmanager
def _single_transaction(shop: Shop) -> Iterator[TransactionFactory]:
    """Every write in one transaction, which begins with the first write: validation holds no lock."""
    with ExitStack() as stack:
        connections: list[sa.Connection] = []

        def write() -> AbstractContextManager[sa.Connection]:
            if not connections:
                connections.append(stack.enter_context(engine.write_transaction(shop)))
            return nullcontext(connections[0])

        yield write


@contextmanager
def _dry_run(shop: Shop) -> Iterator[TransactionFactory]:
    with engine.dry_run_transaction(shop) as connection:
        yield lambda: nullcontext(connection)
