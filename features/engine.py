"""The engine: where the counting is done, quickly and always to the same last digit."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.duckdb import Backend

EPOCH = datetime(1970, 1, 1).date()
STEPS_OF_A_WEIGHT = 2.0**44  # a sum of a few hundred weights stays below 2**53, where doubles add exactly


def connect() -> Backend:
    """A fresh DuckDB in memory, on UTC, with OMP_NUM_THREADS threads (all cores where that is not set)."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    settings = {"threads": int(threads)} if threads.isdigit() and int(threads) > 0 else {}
    con = ibis.duckdb.connect(**settings)
    con.raw_sql("set timezone = 'UTC'")
    con.raw_sql("set enable_progress_bar = false")
    return con


def instants(moments: Sequence[datetime], timezone: str) -> ir.Table:
    """The moments to look back from: as_of (UTC), as_of_day (day number in the shop's zone)."""
    rows = {"as_of": [utc(m) for m in moments], "as_of_day": [day_number(m, timezone) for m in moments]}
    types = {"as_of": pa.timestamp("us", "UTC"), "as_of_day": pa.int64()}
    return ibis.memtable(pa.table({name: pa.array(rows[name], kind) for name, kind in types.items()}))


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


def save(con: Backend, table: ir.Table, path: Path) -> None:
    """Write a Parquet file beside its name, to be moved into place when all of a snapshot is ready."""
    path.parent.mkdir(parents=True, exist_ok=True)
    con.to_parquet(table, path)
