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

from features.engine import duckdb, expressions, ledger_lines
from features.families import category_history, engagement
from features.snapshots import point_in_time


class InvalidCutoffs(ValueError):
    """A snapshot was asked for at no moment, or at one that lies after the run's own."""


def write_snapshot(
    ledger: Path,
    out: Path,
    *,
    as_of: datetime,
    cutoffs: Sequence[datetime],
    timezone: str,
    list_cutoffs: Sequence[datetime] | None = None,
    customer_cutoffs: pd.DataFrame | None = None,
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
    checked_cutoffs = _validated_cutoffs(cutoffs, as_of)
    checked_list_cutoffs = checked_cutoffs if list_cutoffs is None else _validated_cutoffs(list_cutoffs, as_of)
    cutoff_tables = build_cutoff_tables(
        as_of, checked_cutoffs, checked_list_cutoffs, customer_cutoff_pairs(customer_cutoffs, as_of), timezone
    )
    query_plan = point_in_time.batch_plan(timezone)
    con = duckdb.connect()
    try:
        register_inputs(con, ledger, as_of, cutoff_tables)
        query_plan.run(con)
        remove_partial_files(Path(out))
        return _write_outputs(con, query_plan.outputs, Path(out))
    finally:
        con.disconnect()


def register_inputs(con: Backend, ledger: Path, as_of: datetime, cutoff_tables: dict[str, pa.Table]) -> None:
    """Put what was known as of a moment, and the moments to look back from, where a recipe is followed."""
    con.create_view("sold", ledger_lines.lines_as_of(ledger, as_of, con))
    con.create_view("products", ledger_lines.read_products(ledger, con))
    con.create_view("interactions", ledger_lines.interactions_as_of(ledger, as_of, con))
    for name, table in cutoff_tables.items():
        con.con.register(name, table)


def build_cutoff_tables(
    as_of: datetime,
    cutoffs: Sequence[datetime],
    list_cutoffs: Sequence[datetime],
    customer_cutoffs: pa.Table,
    timezone: str,
) -> dict[str, pa.Table]:
    """The tables of moments that a recipe is followed over; see moments.ASKED."""
    priced = sorted({duckdb.to_utc(as_of), *customer_cutoffs["as_of"].unique().to_pylist()})
    cutoffs_by_table = {"instants": list(cutoffs), "shelves": list(list_cutoffs), "latest": [max(list_cutoffs)]}
    tables = {name: duckdb.build_cutoffs(table_cutoffs, timezone) for name, table_cutoffs in cutoffs_by_table.items()}
    for name, table_cutoffs in cutoffs_by_table.items():
        tables[f"{name}_mornings"] = duckdb.build_cutoffs(duckdb.mid_day_cutoffs(table_cutoffs, timezone), timezone)
    tables["priced"] = duckdb.build_cutoffs(priced, timezone)
    priced_cutoffs = duckdb.build_cutoffs(priced, timezone)
    own = customer_cutoffs.join(priced_cutoffs, "as_of").combine_chunks()
    tables["answers"] = _excluding_cutoffs(own, cutoffs)
    tables["receipts"] = _excluding_cutoffs(own, list_cutoffs)
    mid_day = pa.array(duckdb.mid_day_cutoffs(priced, timezone), priced_cutoffs["as_of"].type)
    tables["receipts_mornings"] = tables["receipts"].filter(pc.is_in(tables["receipts"]["as_of"], mid_day))
    return tables


def digest(ledger: Path, *, as_of: datetime) -> str:
    """What was known at as_of, in sixteen letters: the same records give the same, however they are stored."""
    con = duckdb.connect()
    try:
        tables = [
            ledger_lines.lines_as_of(ledger, as_of, con).drop("known_at", "superseded_at"),
            ledger_lines.read_products(ledger, con, ledger_lines.PRODUCT_DETAIL_SCHEMA),
            _mark_unanswered(ledger_lines.interactions_as_of(ledger, as_of, con), as_of),
        ]
        sums = [
            con.raw_sql(f"select count(*), sum(hash(t)::hugeint) from ({con.compile(t)}) t").fetchall() for t in tables
        ]
        return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]
    finally:
        con.disconnect()


def _mark_unanswered(interactions: ir.Table, as_of: datetime) -> ir.Table:
    """Interactions with who waits for an answer at a moment; when it came later is not known yet."""
    is_unanswered = engagement.is_unanswered(interactions, ledger_lines.timestamp_literal(as_of))
    return interactions.mutate(waiting=is_unanswered).drop("known_at", "status", "answered_at")


def first_sale_day(ledger: Path, as_of: datetime, timezone: str) -> date | None:
    """The shop's day of the first sale known at as_of; None where there is none."""
    visible_lines = ledger_lines.lines_as_of(ledger, as_of)
    first = visible_lines.sold_at.min().execute()
    return None if pd.isna(first) else _day_to_date(duckdb.day_number(first.to_pydatetime(), timezone))


def history_days(ledger: Path, as_of: datetime, timezone: str) -> int:
    """Days of history before as_of, from the first sale; 0 where there is none."""
    first = first_sale_day(ledger, as_of, timezone)
    return 0 if first is None else (_day_to_date(duckdb.day_number(as_of, timezone)) - first).days


def gap_quantile(ledger: Path, *, as_of: datetime, timezone: str, share: float = 0.97) -> float:
    """The days within which a share q of all gaps between purchase days end; NaN without any gap."""
    days = ledger_lines.purchase_days(ledger_lines.lines_as_of(ledger, as_of), timezone)
    before = ibis.window(group_by="customer_key", order_by="day")
    gaps = days.mutate(gap_days=days.day - days.day.lag().over(before))
    answer = gaps.gap_days.quantile(share).execute()
    return float("nan") if pd.isna(answer) else float(answer)


def load_purchases(ledger: Path, *, as_of: datetime, timezone: str) -> pd.DataFrame:
    """Every purchase day known at as_of: customer_key, day (midnight, no zone), spend; sorted by both."""
    days = ledger_lines.purchase_days(ledger_lines.lines_as_of(ledger, as_of), timezone)
    frame = days.select("customer_key", "day", "spend").order_by("customer_key", "day").execute()
    return frame.assign(day=pd.to_datetime(frame["day"], unit="D"))


def load_category_days(ledger: Path, *, as_of: datetime, timezone: str, start: datetime) -> pd.DataFrame:
    """Who bought of which category on which days from start, known at as_of: customer_key, category, day.

    Days are midnights without a zone, as in `purchases`; sorted by all three. What happened next, for restock.
    """
    con = duckdb.connect()
    purchases = category_history.categorised_lines(
        ledger_lines.purchased_lines(ledger_lines.lines_as_of(ledger, as_of, con)),
        ledger_lines.read_products(ledger, con),
        timezone,
    )
    days = (
        purchases.filter(purchases.sold_at >= duckdb.to_utc(start)).select("customer_key", "category", "day").distinct()
    )
    frame = days.order_by("customer_key", "category", "day").execute()
    return frame.assign(day=pd.to_datetime(frame["day"], unit="D"))


def load_product_days(
    ledger: Path, *, as_of: datetime, timezone: str, start: datetime | None = None, end: datetime | None = None
) -> pd.DataFrame:
    """Who bought which product on which days, known at as_of, from start until before end, where those are given.

    Columns customer_key, product_key, day (midnight, no zone, as in `purchases`); sorted by all three.
    """
    sold = ledger_lines.purchased_lines(ledger_lines.lines_as_of(ledger, as_of))
    sold = sold if start is None else sold.filter(sold.sold_at >= duckdb.to_utc(start))
    sold = sold if end is None else sold.filter(sold.sold_at < duckdb.to_utc(end))
    dated = sold.select(
        "customer_key", "product_key", day=expressions.local_day_number(sold.sold_at, timezone)
    ).distinct()
    frame = dated.order_by("customer_key", "product_key", "day").execute()
    return frame.assign(day=pd.to_datetime(frame["day"], unit="D"))


def load_baskets(ledger: Path, *, as_of: datetime, start: datetime, end: datetime) -> pd.DataFrame:
    """Who bought what from start until before end, known at as_of: customer_key, product_keys (sorted)."""
    visible_lines = ledger_lines.purchased_lines(ledger_lines.lines_as_of(ledger, as_of))
    window = visible_lines.filter(
        visible_lines.sold_at >= duckdb.to_utc(start), visible_lines.sold_at < duckdb.to_utc(end)
    )
    pairs = window.select("customer_key", "product_key").distinct()
    sorted_keys = pairs.product_key.collect(order_by="product_key")
    lists = pairs.group_by("customer_key").aggregate(product_keys=sorted_keys)
    return lists.order_by("customer_key").execute()


def load_products(ledger: Path) -> pd.DataFrame:
    """What the catalogue says: product_key, category, subcategory, department, brand; None where it is silent."""
    path = Path(ledger) / "products.parquet"
    word_columns = ("category", "subcategory", "department", "brand")
    if not path.exists():
        return pd.DataFrame(
            {"product_key": pd.Series(dtype="int64"), **{column: pd.Series(dtype=object) for column in word_columns}}
        )
    catalogue = pq.read_table(path, columns=["product_key", *word_columns]).to_pandas()
    return catalogue.sort_values("product_key", ignore_index=True)


def _validated_cutoffs(cutoffs: Sequence[datetime], as_of: datetime) -> list[datetime]:
    wanted = sorted({duckdb.to_utc(cutoff) for cutoff in cutoffs})
    if not wanted or wanted[-1] > duckdb.to_utc(as_of):
        raise InvalidCutoffs("give at least one moment, and none after as_of")
    return wanted


def customer_cutoff_pairs(customer_cutoffs: pd.DataFrame | None, as_of: datetime) -> pa.Table:
    """Who is looked at when, once each; moments after as_of have not come yet."""
    frame = pd.DataFrame({"customer_key": [], "event_timestamp": []}) if customer_cutoffs is None else customer_cutoffs
    timestamps = pd.to_datetime(frame["event_timestamp"], utc=True).dt.as_unit("us")
    pairs = pd.DataFrame({"customer_key": frame["customer_key"].astype("int64"), "as_of": timestamps})
    pairs = pairs[pairs["as_of"] <= duckdb.to_utc(as_of)].drop_duplicates()
    schema = pa.schema([("customer_key", pa.int64()), ("as_of", pa.timestamp("us", "UTC"))])
    return pa.Table.from_pandas(pairs, schema=schema, preserve_index=False)


def _excluding_cutoffs(pairs: pa.Table, cutoffs: Sequence[datetime]) -> pa.Table:
    """Pairs at other moments than those at which everybody is looked at anyway."""
    excluded = pa.array([duckdb.to_utc(cutoff) for cutoff in cutoffs], pairs["as_of"].type)
    return pairs.filter(pc.invert(pc.is_in(pairs["as_of"], excluded)))


def _write_outputs(con: Backend, outputs: dict[str, str], out: Path) -> dict[str, int]:
    paths = {name: out / name / "part.parquet" for name in outputs}
    rows = {name: duckdb.write_parquet(con, query, _partial_path(paths[name])) for name, query in outputs.items()}
    for path in paths.values():
        os.replace(_partial_path(path), path)
    return rows


def remove_partial_files(out: Path) -> None:
    """Remove the half-written files of runs that were killed."""
    for partial in Path(out).glob("*/.part.*.parquet"):
        if not _is_running(int(partial.name.split(".")[2])):
            partial.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _partial_path(path: Path) -> Path:
    return path.with_name(f".part.{os.getpid()}.parquet")


def _day_to_date(day: int) -> date:
    return duckdb.EPOCH + timedelta(days=day)
