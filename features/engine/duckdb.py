"""The engine: where the counting is done, quickly and always to the same last digit."""

import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend

EPOCH = datetime(1970, 1, 1).date()
#: Rows that lie together in a file: whoever asks for one moment reads little of any other.
TOGETHER = 4_096
STEPS_OF_A_WEIGHT = 2.0**44  # a sum of a few hundred weights stays below 2**53, where doubles add exactly


#: What counting may hold in memory; the rest waits on disk. Bounded at 1.2 GB, the features of a night of the Complete
#: Journey peaked at 1.9 GiB instead of 3.9 and took a tenth longer; larger shops want a little more.
MEMORY = "2GB"


def connect() -> Backend:
    """A fresh DuckDB in memory, on UTC, with OMP_NUM_THREADS threads (all cores where that is not set).

    It holds REGULARS_ENGINE_MEMORY at most (MEMORY where that is not set).
    """
    threads = os.environ.get("OMP_NUM_THREADS", "")
    settings = {"threads": int(threads)} if threads.isdigit() and int(threads) > 0 else {}
    con = ibis.duckdb.connect(**settings)
    con.raw_sql("set timezone = 'UTC'")
    con.raw_sql(f"set memory_limit = '{os.environ.get('REGULARS_ENGINE_MEMORY', MEMORY)}'")
    con.raw_sql(f"set temp_directory = '{Path(tempfile.gettempdir()) / f'regulars-{os.getpid()}'}'")
    # Asked first: in a notebook without widgets DuckDB refuses to hear of its progress bar at all.
    if con.con.sql("select current_setting('enable_progress_bar')").fetchall() == [(True,)]:
        con.raw_sql("set enable_progress_bar = false")
    return con


class Recipe:
    """Steps of counting over named tables, written down in SQL once and then followed as often as needed.

    Turning expressions into SQL takes longer than counting one customer's lines does, and who follows the same
    recipe for everybody at night and for one sale at the till gets the same number to the last digit.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []
        self.answers: dict[str, str] = {}

    def keep(self, table: ir.Table) -> ir.Table:
        """Count this table once and keep it; the steps after it read what was kept."""
        name = f"step_{len(self.steps)}"
        self.steps.append((name, sql(table)))
        return ibis.table(table.schema(), name=name)

    def answer(self, name: str, table: ir.Table) -> None:
        """What the recipe is for: a table that whoever follows it may ask for by name."""
        self.answers[name] = sql(table)

    def follow(self, con: Backend) -> None:
        """Count every step, over the named tables that lie in con."""
        for name, query in self.steps:
            con.con.execute(f"create temp table {name} as {query}")

    def learn(self, con: Backend) -> None:
        """Have every statement ready, over named tables that lie in con and may still be empty; see `repeat`."""
        for name, query in self.steps:
            con.con.execute(f"create temp table {name} as {query}")
            con.con.execute(f"prepare make_{name} as insert into {name} {query}")
        for name, query in self.answers.items():
            con.con.execute(f"prepare tell_{name} as {query}")

    def repeat(self, con: Backend) -> dict[str, pa.Table]:
        """Every answer, over what lies in the named tables by now: twice as fast as starting anew."""
        for name, _ in self.steps:
            con.con.execute(f"execute make_{name}")
        return {name: con.con.sql(f"execute tell_{name}").to_arrow_table() for name in self.answers}


def sql(table: ir.Table) -> str:
    """A table's SQL, on one line."""
    return str(ibis.to_sql(table, dialect="duckdb", pretty=False))


def instants(moments: Sequence[datetime], timezone: str) -> pa.Table:
    """The moments to look back from: as_of (UTC), as_of_day (day number in the shop's zone)."""
    rows = {"as_of": [utc(m) for m in moments], "as_of_day": [day_number(m, timezone) for m in moments]}
    types = {"as_of": pa.timestamp("us", "UTC"), "as_of_day": pa.int64()}
    return pa.table({name: pa.array(rows[name], kind) for name, kind in types.items()})


def utc(moment: datetime) -> datetime:
    """The same instant in UTC; a time without a zone is refused rather than guessed."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no time zone; give an aware datetime, such as one of customers.clock")
    return moment.astimezone(UTC)


def day_number(moment: datetime, timezone: str) -> int:
    """The shop's day that a moment falls on, counted from 1970-01-01."""
    return (moment.astimezone(ZoneInfo(timezone)).date() - EPOCH).days


def opens_a_day(moment: datetime, timezone: str) -> bool:
    """Whether a moment is the first instant of a day in the shop's zone, so that it cuts no day in two."""
    local = moment.astimezone(ZoneInfo(timezone))
    return local.fold == 0 and local == local.replace(hour=0, minute=0, second=0, microsecond=0)


def cutting(moments: Sequence[datetime], timezone: str) -> list[datetime]:
    """The moments that fall into the middle of a day in the shop's zone."""
    return [moment for moment in moments if not opens_a_day(moment, timezone)]


@ibis.udf.scalar.builtin(name="timezone")
def _in_zone(zone: str, at: dt.Timestamp(timezone="UTC")) -> dt.Timestamp():  # type: ignore[valid-type]
    """DuckDB's own conversion of an instant to the time on a wall clock."""


def day_of(at: ir.TimestampValue, timezone: str) -> ir.IntegerValue:
    """The shop's day that an instant falls on, counted from 1970-01-01 (a Thursday)."""
    return _in_zone(timezone, at).date().epoch_days().cast("int64")


def weekday_of(day: ir.IntegerValue) -> ir.IntegerValue:
    """Monday 0 to Sunday 6, of a day number."""
    return (day + 3) % 7


def whole(number: ir.NumericValue, steps: float) -> ir.FloatingValue:
    """A number as a whole count of small steps, in a double.

    Doubles that hold whole numbers add up to the same last digit in whatever order threads bring them, so a
    snapshot made twice is the same file, and a model trained twice is the same model.
    """
    return (number * steps).round().cast("float64")


def decayed(age_days: ir.NumericValue, half_life_days: float) -> ir.FloatingValue:
    """What a day counts for after age_days, when it loses half its weight every half_life_days; in steps."""
    return whole(ibis.literal(0.5) ** (age_days / half_life_days), STEPS_OF_A_WEIGHT)


def ratio(part: ir.NumericValue, of: ir.NumericValue) -> ir.FloatingValue:
    """part / of, and NULL where there is nothing to divide by."""
    return part.cast("float64") / of.cast("float64").nullif(0)


def total(number: ir.NumericColumn, where: ir.BooleanValue | None = None) -> ir.NumericValue:
    """A sum that is 0, and not NULL, over nothing."""
    return ibis.coalesce(number.sum(where=where), 0.0)


def listed(
    rows: ir.Table,
    columns: dict[str, ir.Value],
    *,
    lately: Sequence[ir.Value],
    heaviest: Sequence[ir.Value],
    longest: int,
) -> ir.Table:
    """Rows of a customer and a moment as aligned lists, in the order of `heaviest` (all rising).

    Of more rows than the longest list may have, the first in the order of `lately` are kept.
    """
    order = {f"order_{nth}": value for nth, value in enumerate(heaviest)}
    late = {f"late_{nth}": value for nth, value in enumerate(lately)}
    each = rows.select("customer_key", "as_of", row=ibis.struct(columns), **order, **late)
    kept = _shortened(each, list(late), longest)
    # Sorted once as whole rows, then taken apart: a sort for each list takes four times as long.
    sorted_rows = kept.row.collect(order_by=[kept[name] for name in order])
    lists = kept.group_by("customer_key", "as_of").aggregate(rows=sorted_rows)
    return lists.select("customer_key", "as_of", **{name: _part(lists.rows, name) for name in columns})


def _shortened(rows: ir.Table, lately: list[str], longest: int) -> ir.Table:
    """Only the few customers with too many rows have theirs put in order, which costs more than all the rest."""
    keys = ["customer_key", "as_of"]
    sizes = rows.group_by(keys).aggregate(size=rows.count())
    long = sizes.filter(sizes.size > longest)
    many = rows.semi_join(long, keys)
    place = ibis.row_number().over(ibis.window(group_by=keys, order_by=lately))
    first = many.mutate(place=place).filter(lambda row: row.place < longest).drop("place")
    return rows.anti_join(long, keys).union(first)


def _part(rows: ir.ArrayValue, name: str) -> ir.ArrayValue:
    return rows.map(lambda row: row[name])


def save(con: Backend, query: str, path: Path) -> int:
    """Write a Parquet file beside its name, to be moved into place when all of a snapshot is ready; its rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    con.con.execute(f"copy ({query}) to '{quoted(path)}' (format parquet, row_group_size {TOGETHER})")
    return int(pq.read_metadata(path).num_rows)


def quoted(path: Path) -> str:
    """A path inside SQL's quotes."""
    return str(path).replace("'", "''")
