"""Loading: records come in from files, are checked row by row, and are kept or turned away with a reason."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from customers import catalogue, checks, database, enrolment, orders, rejects
from customers.kinds import Kind, Writer
from customers.shop import Shop, ShopError
from customers.sources import files
from customers.sources.files import Records, quoted

KINDS: dict[str, Kind] = {kind.name: kind for kind in (enrolment.KIND, catalogue.KIND, orders.KIND)}


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
        _check(shop, how, records)
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


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise ShopError(f"unknown kind of record {name!r}; known are {', '.join(KINDS)}")
    return KINDS[name]


def _check(shop: Shop, kind: Kind, records: Records) -> None:
    """Read every text as a value; what cannot be read so is marked with the reason, in table `checked`."""
    for name in kind.columns:
        if name not in records.columns:
            records.connection.execute(f"alter table raw add column {quoted(name)} varchar")
    wanted = kind.checks(shop)
    records.connection.execute(f"create table checked as {checks.checked(wanted, kind.columns)}")
    _mark_repeats(records, kind, [check.name for check in wanted])


def _mark_repeats(records: Records, kind: Kind, kept: Sequence[str]) -> None:
    """Of rows with one id the last wins: earlier ones are turned away, or counted as the same again."""
    key = ", ".join(f"c.{quoted(name)}" for name in kind.key)
    good = " and ".join(["reason is null", *(f"c.{quoted(name)} is not null" for name in kind.key)])
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
def _rehearsal(shop: Shop) -> Iterator[Writer]:
    with database.rehearsing(shop) as connection:
        yield lambda: nullcontext(connection)
