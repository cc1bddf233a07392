"""Snapshot: everything the families know about every customer, at one moment or at many, in one pass."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from functools import reduce
from pathlib import Path
from types import ModuleType

import ibis
import ibis.expr.types as ir
import pandas as pd
from ibis.backends.duckdb import Backend

from features import engine, lines, rhythm, spend, staples, taste

FAMILIES: dict[str, ModuleType] = {"rhythm": rhythm, "spend": spend, "taste": taste}


class NoMoments(ValueError):
    """A snapshot was asked for at no moment, or at one that lies after the run's own."""


def write(
    ledger: Path,
    out: Path,
    *,
    as_of: datetime,
    moments: Sequence[datetime],
    timezone: str,
    shelf_moments: Sequence[datetime] | None = None,
) -> dict[str, int]:
    """Write out/FAMILY/part.parquet for every family and return the rows of each.

    A run as of `as_of` sees the ledger as it was known then; each of `moments` sees the sales before it.
    Rows: rhythm, spend and taste have one for a customer and moment with a purchase before it (numbers,
    float64); shelf one with lists, for shelf_moments only (all moments, if not given); staples one for a customer
    and product, at the latest of shelf_moments. Sorted by event_timestamp and customer_key; `created` is the
    row's own moment. Files appear whole, once all of them are ready.
    """
    wanted = _checked(moments, as_of)
    shelves = wanted if shelf_moments is None else _checked(shelf_moments, as_of)
    con = engine.connect()
    try:
        seen_lines = lines.known(ledger, as_of, con)
        tables = numbers(con, ledger, seen_lines, wanted, timezone)
        tables |= products(con, seen_lines, shelves, timezone)
        return _publish(con, tables, Path(out))
    finally:
        con.disconnect()


def numbers(
    con: Backend, ledger: Path, seen_lines: ir.Table, moments: Sequence[datetime], timezone: str
) -> dict[str, ir.Table]:
    """The families of one number a column: name -> table, from one pass over customer-days."""
    streams = [_stored(con, stream) for stream in happenings(con, ledger, seen_lines, timezone)]
    days = _stored(con, lines.visits(gathered(streams, ["customer_key", "day"])))
    features = _stored(con, summed(seen(days, streams, moments, timezone)))
    return {name: _stamped(features, names(family)) for name, family in FAMILIES.items()}


def happenings(con: Backend, ledger: Path, seen_lines: ir.Table, timezone: str) -> list[ir.Table]:
    """What happened, in streams of (customer_key, day, sold_at) and the numbers that add up over days."""
    listed = _stored(con, lines.catalogue(ledger, con))
    bought = _stored(con, lines.labelled(lines.bought(seen_lines), listed))
    trips = lines.baskets(seen_lines, timezone).drop("order_key")
    kinds = [taste.habits(bought, kind, timezone) for kind in lines.KINDS]
    return [trips, taste.firsts(bought, timezone), *kinds]


def gathered(streams: Iterable[ir.Table], keys: list[str]) -> ir.Table:
    """The streams side by side, a row for each of the keys: sums, but the maximum of a column *_top."""
    totals = [_totals(stream, keys) for stream in streams]
    return reduce(lambda left, right: _joined(left, right, keys), totals)


def seen(days: ir.Table, streams: Sequence[ir.Table], moments: Sequence[datetime], timezone: str) -> ir.Table:
    """Each customer-day, once for each moment that sees it: with as_of, as_of_day and age_days.

    A moment sees all of the days before its own. Of its own day it sees the morning: what was sold before it.
    """
    instants = engine.instants(moments, timezone)
    whole = days.join(instants, days.day < instants.as_of_day)
    if cutting := engine.cutting(moments, timezone):
        mornings = _mornings(days, streams, engine.instants(cutting, timezone))
        whole = whole.union(mornings.select(*whole.columns))
    new_week = (whole.day + 3) // 7 > (whole.day - whole.gap_days + 3) // 7
    return whole.mutate(
        age_days=whole.as_of_day - whole.day,
        new_week=ibis.cases((whole.purchase & (whole.gap_days.isnull() | new_week), 1.0), else_=0.0),
    )


def summed(days: ir.Table) -> ir.Table:
    """Every feature of every family, a row for a customer and moment with a purchase before it."""
    named: dict[str, ir.Value] = {}
    for family in FAMILIES.values():
        named |= {name: column.cast("float64") for name, column in family.columns(days).items()}
    return days.group_by("customer_key", "as_of").having(days.visit.sum() > 0).aggregate(**named)


def products(con: Backend, seen_lines: ir.Table, moments: Sequence[datetime], timezone: str) -> dict[str, ir.Table]:
    """Staples (a row for a customer, product and moment) and the shelf made of them."""
    bought = lines.bought(seen_lines)
    days = _stored(con, staples.product_days(bought, timezone))
    instants = engine.instants(moments, timezone)
    whole = days.join(instants, days.day < instants.as_of_day)
    if cutting := engine.cutting(moments, timezone):
        dated = bought.mutate(day=engine.day_of(bought.sold_at, timezone))
        early = _before(dated, engine.instants(cutting, timezone))
        mornings = _since(staples.worth(early, "as_of", "as_of_day"), days, ["customer_key", "product_key"])
        whole = whole.union(mornings.select(*whole.columns))
    whole = whole.mutate(age_days=whole.as_of_day - whole.day)
    columns = staples.columns(whole)
    grouped = whole.group_by("customer_key", "product_key", "as_of").aggregate(**columns)
    table = _stored(con, _stamped(grouped, ["product_key", *columns]))
    # Nobody reads the pairs of earlier moments, only their shelves; they would be most of what is written.
    latest = table.filter(table.event_timestamp == engine.utc(max(moments)))
    return {"staples": latest, "shelf": staples.shelf(table)}


def digest(ledger: Path, *, as_of: datetime) -> str:
    """What was known at as_of, in sixteen letters: the same sales and products give the same, however stored."""
    con = engine.connect()
    try:
        seen = [lines.known(ledger, as_of, con).drop("known_at", "superseded_at"), lines.catalogue(ledger, con)]
        sums = [
            con.raw_sql(f"select count(*), sum(hash(t)::hugeint) from ({con.compile(t)}) t").fetchall() for t in seen
        ]
        return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]
    finally:
        con.disconnect()


def first_day(ledger: Path, as_of: datetime, timezone: str) -> date | None:
    """The shop's day of the first sale known at as_of; None where there is none."""
    known = lines.known(ledger, as_of)
    first = known.sold_at.min().execute()
    return None if pd.isna(first) else _date(engine.day_number(first.to_pydatetime(), timezone))


def history_days(ledger: Path, as_of: datetime, timezone: str) -> int:
    """Days of history before as_of, from the first sale; 0 where there is none."""
    first = first_day(ledger, as_of, timezone)
    return 0 if first is None else (_date(engine.day_number(as_of, timezone)) - first).days


def gap_quantile(ledger: Path, *, as_of: datetime, timezone: str, q: float = 0.97) -> float:
    """The days within which a share q of all gaps between purchase days end; NaN without any gap."""
    days = lines.purchase_days(lines.known(ledger, as_of), timezone)
    before = ibis.window(group_by="customer_key", order_by="day")
    gaps = days.mutate(gap_days=days.day - days.day.lag().over(before))
    answer = gaps.gap_days.quantile(q).execute()
    return float("nan") if pd.isna(answer) else float(answer)


def purchases(ledger: Path, *, as_of: datetime, timezone: str) -> pd.DataFrame:
    """Every purchase day known at as_of: customer_key, day (midnight, no zone), spend; sorted by both."""
    days = lines.purchase_days(lines.known(ledger, as_of), timezone)
    frame = days.select("customer_key", "day", "spend").order_by("customer_key", "day").execute()
    return frame.assign(day=pd.to_datetime(frame["day"], unit="D"))


def bought(ledger: Path, *, as_of: datetime, start: datetime, end: datetime) -> pd.DataFrame:
    """Who bought what from start until before end, known at as_of: customer_key, product_keys (sorted)."""
    known = lines.bought(lines.known(ledger, as_of))
    window = known.filter(known.sold_at >= engine.utc(start), known.sold_at < engine.utc(end))
    pairs = window.select("customer_key", "product_key").distinct()
    sorted_keys = pairs.product_key.collect(order_by="product_key")
    lists = pairs.group_by("customer_key").aggregate(product_keys=sorted_keys)
    return lists.order_by("customer_key").execute()


def _checked(moments: Sequence[datetime], as_of: datetime) -> list[datetime]:
    wanted = sorted({engine.utc(moment) for moment in moments})
    if not wanted or wanted[-1] > engine.utc(as_of):
        raise NoMoments("give at least one moment, and none after as_of")
    return wanted


def _totals(stream: ir.Table, keys: list[str]) -> ir.Table:
    numbers_ = [name for name in stream.columns if name not in ("customer_key", "day", "sold_at", *keys)]
    return stream.group_by(keys).aggregate(
        **{name: stream[name].max() if name.endswith("_top") else stream[name].sum() for name in numbers_}
    )


def _joined(left: ir.Table, right: ir.Table, keys: list[str]) -> ir.Table:
    return left.left_join(right, keys).drop(*[f"{key}_right" for key in keys])


def _mornings(days: ir.Table, streams: Sequence[ir.Table], instants: ir.Table) -> ir.Table:
    early = [_before(stream, instants) for stream in streams]
    mornings = lines.visits(gathered(early, ["customer_key", "day", "as_of", "as_of_day"])).drop("gap_days")
    mornings = _since(mornings, days.filter(days.purchase), ["customer_key"])
    return mornings.mutate(gap_days=ibis.cases((mornings.purchase, mornings.gap_days)))


def _before(stream: ir.Table, instants: ir.Table) -> ir.Table:
    return stream.join(instants, [stream.day == instants.as_of_day, stream.sold_at < instants.as_of])


def _since(mornings: ir.Table, days: ir.Table, keys: list[str]) -> ir.Table:
    earlier = days.select(*keys, last_day=days.day)
    joined = mornings.asof_join(earlier, mornings.day > earlier.last_day, keys)
    return joined.mutate(gap_days=joined.day - joined.last_day)


def _stamped(table: ir.Table, columns: Iterable[str]) -> ir.Table:
    moments = {"event_timestamp": table.as_of, "created": table.as_of}
    return table.select("customer_key", **moments, **{name: table[name] for name in columns})


def names(family: ModuleType) -> list[str]:
    """The columns that a family makes, in their order, without computing any."""
    return list(family.columns(lines.SEEN))


def _stored(con: Backend, table: ir.Table) -> ir.Table:
    return con.create_table(ibis.util.gen_name("step"), table, temp=True)


def _publish(con: Backend, tables: dict[str, ir.Table], out: Path) -> dict[str, int]:
    places = {name: out / name / "part.parquet" for name in tables}
    rows = {}
    for name, table in tables.items():
        engine.save(con, table.order_by(*_order(table)), _beside(places[name]))
        rows[name] = int(con.read_parquet(str(_beside(places[name]))).count().execute())
    for place in places.values():
        os.replace(_beside(place), place)
    return rows


def _order(table: ir.Table) -> list[str]:
    return [c for c in ("event_timestamp", "customer_key", "product_key") if c in table.columns]


def _beside(place: Path) -> Path:
    return place.with_name(f".part.{os.getpid()}.parquet")


def _date(day: int) -> date:
    return engine.EPOCH + timedelta(days=day)
