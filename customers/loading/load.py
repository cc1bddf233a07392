"""Loading: records come in from files or over the line, are checked, and are kept or turned away with a reason."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from customers import (
    catalogue,
    checks,
    consent,
    database,
    enrolment,
    logbook,
    offers,
    orders,
    rejects,
    tombstones,
)
from customers.kinds import Counts, Kind, Writer
from customers.shop import Shop, ShopError
from customers.sources import files, posted
from customers.sources.files import Records, quoted

# In this order, where a shop loads several: each may speak of what the ones before it brought.
KINDS: dict[str, Kind] = {
    room.KIND.name: room.KIND for room in (enrolment, catalogue, orders, offers, logbook, consent)
}
MOST = 1_000


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of the rows of one load; read = inserted + updated + unchanged + rejected."""

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
    def nothing_kept(self) -> bool:
        """Whether every row was turned away."""
        return self.read > 0 and self.rejected == self.read


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of records taken in over the line; `errors` name each turned away by its place from 0."""

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
    def nothing_kept(self) -> bool:
        """Whether every record was turned away."""
        return self.read > 0 and self.rejected == self.read


def load(
    shop: Shop,
    kind: str,
    paths: Sequence[Path | str],
    *,
    source: str = "files",
    mapping: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> Loaded:
    """Load files of one kind of record. Loading the same again changes nothing.

    `mapping` names the file's own column for one of ours. A dry run goes the whole way and keeps nothing.
    """
    began = time.monotonic()
    how = _kind(kind)
    with files.read(paths, required=how.required, mapping=mapping) as records:
        _check(shop, how, source, records)
        turned_away = rejects.reasons(records)
        rejected = sum(turned_away.values())
        shown = [name for name in how.shown if name in records.columns]
        path = rejects.write(records, shop.home / "rejects", kind, shown) if rejected else None
        repeated = records.count("checked", "again")
        with _writer(shop, dry_run) as write:
            counts = how.keep(shop, source, records, write)
        return Loaded(
            kind=kind,
            read=records.count("raw") + records.count("broken"),
            inserted=counts.inserted,
            updated=counts.updated,
            unchanged=counts.unchanged + repeated,
            rejected=rejected,
            rejects_file=str(path) if path else None,
            seconds=round(time.monotonic() - began, 3),
            reasons=turned_away,
            removed=counts.removed,
            stubs=counts.stubs,
        )


def take(shop: Shop, kind: str, records: Sequence[Any], *, source: str = "files") -> Taken:
    """Take in up to 1,000 records of one kind as they come over the line; in one transaction, all or none.

    The checks are those of `load`. Where it returns, what it counts is on disk; `customer_keys` are those
    of whom something changed. A field that a record does not say stays what it was.
    """
    how = _kind(kind)
    if len(records) > MOST:
        raise ShopError(f"{len(records)} records at once are too many; send at most {MOST:,}")
    good, wrong = posted.texts(records)
    counts, repeated, touched = Counts(), 0, set[int]()
    with _one_transaction(shop) as write:
        for group in posted.alike(good) if how.partial else [good] if good else []:
            with posted.read(group, columns=how.columns) as rows:
                rows.touched = touched
                _check(shop, how, source, rows)
                wrong |= _errors(rows)
                repeated += rows.count("checked", "again")
                counts += how.keep(shop, source, rows, write)
    return Taken(
        kind=kind,
        read=len(records),
        inserted=counts.inserted,
        updated=counts.updated,
        unchanged=counts.unchanged + repeated,
        rejected=len(wrong),
        errors=[{"index": index, "reason": wrong[index]} for index in sorted(wrong)],
        customer_keys=sorted(touched),
        removed=counts.removed,
        stubs=counts.stubs,
    )


def _errors(records: Records) -> dict[int, str]:
    turned_away = records.connection.execute("select row_no - 1, reason from checked where reason is not null")
    return dict(turned_away.fetchall())


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise ShopError(f"unknown kind of record {name!r}; known are {', '.join(KINDS)}")
    return KINDS[name]


def _check(shop: Shop, kind: Kind, source: str, records: Records) -> None:
    """Read every text as a value; what cannot be read so is marked with the reason, in table `checked`."""
    unsaid = [quoted(name) for name in kind.columns if name not in records.columns]
    records.connection.execute("".join(f"alter table raw add column if not exists {name} varchar;" for name in unsaid))
    wanted = kind.checks(shop)
    records.connection.execute(f"create temp table checked as {checks.checked(wanted, kind.columns)}")
    tombstones.mark(shop, source, kind, records)
    kind.judge(shop, source, records)
    _mark_repeats(records, kind, [check.name for check in wanted])


def _mark_repeats(records: Records, kind: Kind, kept: Sequence[str]) -> None:
    """Of rows with one id the last wins: earlier ones are turned away, or counted as the same again."""
    key = ", ".join(f"c.{quoted(name)}" for name in kind.key)
    good = " and ".join(["c.reason is null", *(f"c.{quoted(name)} is not null" for name in kind.key)])
    distinct = records.connection.execute(
        f"select count(*) from (select distinct {key} from checked c where {good})"
    ).fetchall()[0][0]
    if distinct == records.count("checked c", good):
        return
    plain = ", ".join(quoted(name) for name in kind.key)
    values = [f"c.{quoted(name)}" for name in kept]
    values += [f"raw.{quoted(name)}" for name in records.columns if name not in kind.columns]
    records.connection.execute(
        f"""create temp table repeats as
            select file_no, row_no, content = last_value(content) over w as same from (
              select c.file_no, c.row_no, {key}, hash({", ".join(values)}) as content
              from checked c join raw using (file_no, row_no) where {good})
            window w as (partition by {plain} order by file_no, row_no
                         rows between unbounded preceding and unbounded following)
            qualify row_number() over (partition by {plain} order by file_no desc, row_no desc) > 1"""
    )
    records.connection.execute(
        f"""update checked set again = repeats.same,
              reason = case when not repeats.same then 'the same {" and ".join(kind.key)} comes again later' end
            from repeats where checked.file_no = repeats.file_no and checked.row_no = repeats.row_no"""
    )


def _writer(shop: Shop, dry_run: bool) -> AbstractContextManager[Writer]:
    """How write transactions are opened: each on its own, or for a dry run all in one that is taken back."""
    if not dry_run:
        return nullcontext(lambda: database.writing(shop))
    return _rehearsal(shop)


@contextmanager
def _one_transaction(shop: Shop) -> Iterator[Writer]:
    """Every write in one transaction, which begins with the first: nobody waits while records are only looked at."""
    with ExitStack() as stack:
        held: list[sa.Connection] = []

        def write() -> AbstractContextManager[sa.Connection]:
            if not held:
                held.append(stack.enter_context(database.writing(shop)))
            return nullcontext(held[0])

        yield write


@contextmanager
def _rehearsal(shop: Shop) -> Iterator[Writer]:
    with database.rehearsing(shop) as connection:
        yield lambda: nullcontext(connection)
