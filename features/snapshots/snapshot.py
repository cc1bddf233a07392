"""Snapshot: everything the families know about every customer, at one moment or at many, in one pass."""

import hashlib
import os
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend

from features import engagement, engine, lines, needs
from features import moments as recipes


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
    receipts: pd.DataFrame | None = None,
) -> dict[str, int]:
    """Write out/FAMILY/part.parquet for every family and return the rows of each.

    A run as of `as_of` sees the ledger as it was known then; each of `moments` sees what happened before it.
    Rows: rhythm, spend and taste have one for a customer and moment with a purchase before it, engagement one
    with an interaction before it (numbers, float64). Shelf and needs have one with lists, for shelf_moments only
    (all moments, if not given). `receipts` (customer_key, event_timestamp) are further moments of single customers,
    such as those at which an offer reached them: shelf and engagement have rows for them too. Two tables are for
    no view: staples, a row for a customer and product at the latest of shelf_moments, and prices, one for a product
    at as_of and at every moment of receipts. Sorted by event_timestamp and key; `created` is the row's own moment.
    Files appear whole, once all of them are ready.
    """
    wanted = _checked(moments, as_of)
    shelves = wanted if shelf_moments is None else _checked(shelf_moments, as_of)
    looks = looking(as_of, wanted, shelves, pairs(receipts, as_of), timezone)
    recipe = recipes.night(timezone)
    con = engine.connect()
    try:
        lay_out(con, ledger, as_of, looks)
        recipe.follow(con)
        sweep(Path(out))
        return _publish(con, recipe.answers, Path(out))
    finally:
        con.disconnect()


def lay_out(con: Backend, ledger: Path, as_of: datetime, looks: dict[str, pa.Table]) -> None:
    """Put what was known as of a moment, and the moments to look back from, where a recipe is followed."""
    con.create_view("sold", lines.known(ledger, as_of, con))
    con.create_view("products", lines.words(ledger, con))
    con.create_view("interactions", lines.interactions(ledger, as_of, con))
    for name, table in looks.items():
        con.con.register(name, table)


def looking(
    as_of: datetime, moments: Sequence[datetime], shelves: Sequence[datetime], receipts: pa.Table, timezone: str
) -> dict[str, pa.Table]:
    """The tables of moments that a recipe is followed over; see moments.ASKED."""
    priced = sorted({engine.utc(as_of), *receipts["as_of"].unique().to_pylist()})
    named = {"instants": list(moments), "shelves": list(shelves), "latest": [max(shelves)]}
    tables = {name: engine.instants(instants, timezone) for name, instants in named.items()}
    for name, instants in named.items():
        tables[f"{name}_mornings"] = engine.instants(engine.cutting(instants, timezone), timezone)
    tables["priced"] = engine.instants(priced, timezone)
    days = engine.instants(priced, timezone)
    own = receipts.join(days, "as_of").combine_chunks()
    tables["answers"] = _but(own, moments)
    tables["receipts"] = _but(own, shelves)
    cutting = pa.array(engine.cutting(priced, timezone), days["as_of"].type)
    tables["receipts_mornings"] = tables["receipts"].filter(pc.is_in(tables["receipts"]["as_of"], cutting))
    return tables


def digest(ledger: Path, *, as_of: datetime) -> str:
    """What was known at as_of, in sixteen letters: the same records give the same, however they are stored."""
    con = engine.connect()
    try:
        seen = [
            lines.known(ledger, as_of, con).drop("known_at", "superseded_at"),
            lines.words(ledger, con, lines.DESCRIBED),
            _as_answered(lines.interactions(ledger, as_of, con), as_of),
        ]
        sums = [
            con.raw_sql(f"select count(*), sum(hash(t)::hugeint) from ({con.compile(t)}) t").fetchall() for t in seen
        ]
        return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]
    finally:
        con.disconnect()


def _as_answered(met: ir.Table, as_of: datetime) -> ir.Table:
    """Interactions with who waits for an answer at a moment; when it came later is not known yet."""
    waiting = engagement.waiting(met, lines.instant(as_of))
    return met.mutate(waiting=waiting).drop("known_at", "status", "answered_at")


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


def category_days(ledger: Path, *, as_of: datetime, timezone: str, start: datetime) -> pd.DataFrame:
    """Who bought of which category on which days from start, known at as_of: customer_key, category, day.

    Days are midnights without a zone, as in `purchases`; sorted by all three. What happened next, for restock.
    """
    con = engine.connect()
    bought_ = needs.dated(lines.bought(lines.known(ledger, as_of, con)), lines.words(ledger, con), timezone)
    days = bought_.filter(bought_.sold_at >= engine.utc(start)).select("customer_key", "category", "day").distinct()
    frame = days.order_by("customer_key", "category", "day").execute()
    return frame.assign(day=pd.to_datetime(frame["day"], unit="D"))


def product_days(
    ledger: Path, *, as_of: datetime, timezone: str, start: datetime | None = None, end: datetime | None = None
) -> pd.DataFrame:
    """Who bought which product on which days, known at as_of, from start until before end, where those are given.

    Columns customer_key, product_key, day (midnight, no zone, as in `purchases`); sorted by all three.
    """
    sold = lines.bought(lines.known(ledger, as_of))
    sold = sold if start is None else sold.filter(sold.sold_at >= engine.utc(start))
    sold = sold if end is None else sold.filter(sold.sold_at < engine.utc(end))
    dated = sold.select("customer_key", "product_key", day=engine.day_of(sold.sold_at, timezone)).distinct()
    frame = dated.order_by("customer_key", "product_key", "day").execute()
    return frame.assign(day=pd.to_datetime(frame["day"], unit="D"))


def bought(ledger: Path, *, as_of: datetime, start: datetime, end: datetime) -> pd.DataFrame:
    """Who bought what from start until before end, known at as_of: customer_key, product_keys (sorted)."""
    known = lines.bought(lines.known(ledger, as_of))
    window = known.filter(known.sold_at >= engine.utc(start), known.sold_at < engine.utc(end))
    pairs = window.select("customer_key", "product_key").distinct()
    sorted_keys = pairs.product_key.collect(order_by="product_key")
    lists = pairs.group_by("customer_key").aggregate(product_keys=sorted_keys)
    return lists.order_by("customer_key").execute()


def products(ledger: Path) -> pd.DataFrame:
    """What the catalogue says: product_key, category, subcategory, department, brand; None where it is silent."""
    path = Path(ledger) / "products.parquet"
    words = ("category", "subcategory", "department", "brand")
    if not path.exists():
        return pd.DataFrame(
            {"product_key": pd.Series(dtype="int64"), **{word: pd.Series(dtype=object) for word in words}}
        )
    told = pq.read_table(path, columns=["product_key", *words]).to_pandas()
    return told.sort_values("product_key", ignore_index=True)


def _checked(moments: Sequence[datetime], as_of: datetime) -> list[datetime]:
    wanted = sorted({engine.utc(moment) for moment in moments})
    if not wanted or wanted[-1] > engine.utc(as_of):
        raise NoMoments("give at least one moment, and none after as_of")
    return wanted


def pairs(receipts: pd.DataFrame | None, as_of: datetime) -> pa.Table:
    """Who is looked at when, once each; moments after as_of have not come yet."""
    frame = pd.DataFrame({"customer_key": [], "event_timestamp": []}) if receipts is None else receipts
    moments = pd.to_datetime(frame["event_timestamp"], utc=True).dt.as_unit("us")
    pairs = pd.DataFrame({"customer_key": frame["customer_key"].astype("int64"), "as_of": moments})
    pairs = pairs[pairs["as_of"] <= engine.utc(as_of)].drop_duplicates()
    schema = pa.schema([("customer_key", pa.int64()), ("as_of", pa.timestamp("us", "UTC"))])
    return pa.Table.from_pandas(pairs, schema=schema, preserve_index=False)


def _but(own: pa.Table, moments: Sequence[datetime]) -> pa.Table:
    """Pairs at other moments than those at which everybody is looked at anyway."""
    everyone = pa.array([engine.utc(moment) for moment in moments], own["as_of"].type)
    return own.filter(pc.invert(pc.is_in(own["as_of"], everyone)))


def _publish(con: Backend, answers: dict[str, str], out: Path) -> dict[str, int]:
    places = {name: out / name / "part.parquet" for name in answers}
    rows = {name: engine.save(con, query, _beside(places[name])) for name, query in answers.items()}
    for place in places.values():
        os.replace(_beside(place), place)
    return rows


def sweep(out: Path) -> None:
    """Remove the half-written files of runs that were killed."""
    for left in Path(out).glob("*/.part.*.parquet"):
        if not _alive(int(left.name.split(".")[2])):
            left.unlink(missing_ok=True)


def _alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _beside(place: Path) -> Path:
    return place.with_name(f".part.{os.getpid()}.parquet")


def _date(day: int) -> date:
    return engine.EPOCH + timedelta(days=day)
