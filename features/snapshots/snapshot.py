"""Snapshots: every feature family for all customers at one or many cutoffs in one pass; and what customers bought."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis.backends import BaseBackend
from ibis.backends.duckdb import Backend
from numpy.typing import NDArray

from customers.shop.settings import DUCKDB
from features.engine import duckdb, engines, expressions, ledger_lines
from features.families import category_history, engagement
from features.snapshots import point_in_time, portions


class InvalidCutoffs(ValueError):
    """A snapshot was requested for no cutoff, or for one after the run's own as_of."""


def write_snapshot(
    ledger: Path,
    out: Path,
    *,
    as_of: datetime,
    cutoffs: Sequence[datetime],
    timezone: str,
    list_cutoffs: Sequence[datetime] | None = None,
    customer_cutoffs: pd.DataFrame | None = None,
    training_customers: NDArray[np.int64] | None = None,
    engine: str = DUCKDB,
) -> dict[str, int]:
    """Write out/FAMILY/part.parquet for every family; returns the number of rows of each.

    The ledger is read as known at `as_of`; each of `cutoffs` uses what happened before it. rhythm, spend and taste have
    one row per customer and cutoff with a purchase before it, engagement one with an interaction before it (float64
    columns). shelf and needs have one row with lists, for list_cutoffs only (all cutoffs, if not given).
    customer_cutoffs (columns customer_key, event_timestamp) are further cutoffs of single customers, such as the times
    at which an offer reached them: shelf and engagement have rows for them too. With training_customers (keys, (n,)),
    all others have rows at the latest of cutoffs and of list_cutoffs only: nothing is learned from them.

    Two tables have no view: staples, one row per customer and product at the latest of list_cutoffs, and prices, one
    row per product at as_of and at every time in customer_cutoffs. Rows are sorted by event_timestamp and key;
    `created` equals event_timestamp. Files are renamed into place once all of them are written. The tables are those of
    DuckDB, to 1e-6, where `engine` is spark. Raises InvalidCutoffs, and ShopUnavailable where Spark is not installed.
    """
    checked_cutoffs = _validated_cutoffs(cutoffs, as_of)
    checked_list_cutoffs = checked_cutoffs if list_cutoffs is None else _validated_cutoffs(list_cutoffs, as_of)
    pairs = customer_cutoff_pairs(customer_cutoffs, as_of)
    cutoff_tables = build_cutoff_tables(as_of, checked_cutoffs, checked_list_cutoffs, pairs, timezone)
    latest_tables = build_cutoff_tables(
        as_of, checked_cutoffs[-1:], checked_list_cutoffs[-1:], pairs.slice(0, 0), timezone
    )
    keys = pa.array([] if training_customers is None else training_customers, pa.int64())
    tables = {**cutoff_tables, "training_customers": pa.table({"customer_key": keys})}
    groups = [portions.CustomerGroup(cutoff_tables)]
    if training_customers is not None:
        groups = _split_groups(cutoff_tables, latest_tables)
    Path(out).mkdir(parents=True, exist_ok=True)
    remove_partial_files(Path(out))
    prefix = f".portions.{os.getpid()}."
    with TemporaryDirectory(dir=out, prefix=prefix) as folder, engines.open_engine(engine) as con:
        files = _write_outputs(con, ledger, as_of, timezone, Path(folder), groups, tables)
        for name, path in files.items():
            (Path(out) / name).mkdir(exist_ok=True)
            os.replace(path, Path(out) / name / "part.parquet")
    return {name: int(pq.read_metadata(Path(out) / name / "part.parquet").num_rows) for name in files}


def register_inputs(con: Backend, ledger: Path, as_of: datetime, tables: dict[str, pa.Table]) -> None:
    """Create the inputs of a plan in `con`: what was known at as_of, and further tables by name.

    tables: those of cutoffs, with the columns of point_in_time.CUTOFF_TABLES, and others.
    """
    ledger_lines.create_record_views(con, ledger, as_of)
    con.create_view("products", ledger_lines.read_products(ledger, con))
    for name, table in tables.items():
        con.con.register(name, table)


def build_cutoff_tables(
    as_of: datetime,
    cutoffs: Sequence[datetime],
    list_cutoffs: Sequence[datetime],
    customer_cutoffs: pa.Table,
    timezone: str,
) -> dict[str, pa.Table]:
    """The tables of point_in_time.CUTOFF_TABLES by name, one row per cutoff (and customer).

    customer_cutoffs: columns customer_key, as_of; see `customer_cutoff_pairs`.
    """
    price_times = sorted({duckdb.to_utc(as_of), *customer_cutoffs["as_of"].unique().to_pylist()})
    cutoffs_by_table = {"cutoffs": list(cutoffs), "list_cutoffs": list(list_cutoffs), "latest": [max(list_cutoffs)]}
    tables = {name: duckdb.build_cutoffs(table_cutoffs, timezone) for name, table_cutoffs in cutoffs_by_table.items()}
    for name, table_cutoffs in cutoffs_by_table.items():
        tables[f"{name}_mid_day"] = duckdb.build_cutoffs(duckdb.mid_day_cutoffs(table_cutoffs, timezone), timezone)
    tables["price_cutoffs"] = duckdb.build_cutoffs(price_times, timezone)
    priced_cutoffs = duckdb.build_cutoffs(price_times, timezone)
    customer_pairs = customer_cutoffs.join(priced_cutoffs, "as_of").combine_chunks()
    tables["customer_cutoffs"] = _excluding_cutoffs(customer_pairs, cutoffs)
    tables["customer_list_cutoffs"] = _excluding_cutoffs(customer_pairs, list_cutoffs)
    mid_day = pa.array(duckdb.mid_day_cutoffs(price_times, timezone), priced_cutoffs["as_of"].type)
    tables["customer_list_cutoffs_mid_day"] = tables["customer_list_cutoffs"].filter(
        pc.is_in(tables["customer_list_cutoffs"]["as_of"], mid_day)
    )
    return tables


def digest(ledger: Path, *, as_of: datetime) -> str:
    """Hash of what was known at as_of, 16 hex digits: equal records give an equal hash, however they are stored."""
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
    """Interactions with whether they are unanswered at as_of; a later time of answer is not known yet."""
    is_unanswered = engagement.is_unanswered(interactions, ledger_lines.timestamp_literal(as_of))
    return interactions.mutate(waiting=is_unanswered).drop("known_at", "status", "answered_at")


def first_sale_day(ledger: Path, as_of: datetime, timezone: str) -> date | None:
    """Local day of the first sale known at as_of; None without any."""
    visible_lines = ledger_lines.lines_as_of(ledger, as_of)
    first = visible_lines.sold_at.min().execute()
    return None if pd.isna(first) else _day_to_date(duckdb.day_number(first.to_pydatetime(), timezone))


def history_days(ledger: Path, as_of: datetime, timezone: str) -> int:
    """Number of local days from the first sale to as_of; 0 without any."""
    first = first_sale_day(ledger, as_of, timezone)
    return 0 if first is None else (_day_to_date(duckdb.day_number(as_of, timezone)) - first).days


def gap_quantile(ledger: Path, *, as_of: datetime, timezone: str, share: float = 0.97, engine: str = DUCKDB) -> float:
    """Quantile, in days, of all gaps between purchase days, at the probability `share`; NaN without any gap."""
    with engines.open_engine(engine) as con:
        days = ledger_lines.purchase_days(ledger_lines.lines_as_of(ledger, as_of, con), timezone)
        before = ibis.window(group_by="customer_key", order_by="day")
        gaps = days.mutate(gap_days=days.day - days.day.lag().over(before))
        quantile = con.execute(gaps.gap_days.quantile(share))
    return float("nan") if pd.isna(quantile) else float(quantile)


def has_purchases(ledger: Path, *, as_of: datetime, timezone: str) -> bool:
    """Whether any customer had a purchase day by as_of."""
    days = ledger_lines.purchase_days(ledger_lines.lines_as_of(ledger, as_of), timezone)
    return bool(days.limit(1).count().execute())


def load_purchases(ledger: Path, *, as_of: datetime, timezone: str, engine: str = DUCKDB) -> pd.DataFrame:
    """Purchase days known at as_of, one row per customer and day: columns customer_key, day, spend.

    day is midnight without a zone; sorted by customer_key and day.
    """
    with engines.open_engine(engine) as con:
        days = ledger_lines.purchase_days(ledger_lines.lines_as_of(ledger, as_of, con), timezone)
        frame = con.execute(days.select("customer_key", "day", "spend").order_by("customer_key", "day"))
    return _with_midnights(frame)


def load_category_days(
    ledger: Path, *, as_of: datetime, timezone: str, start: datetime, engine: str = DUCKDB
) -> pd.DataFrame:
    """Purchase days by customer and category from `start` on, known at as_of: columns customer_key, category, day.

    Days are midnights without a zone, as in load_purchases; sorted by all three. The outcomes of restock.
    """
    with engines.open_engine(engine) as con:
        bought = ledger_lines.purchased_lines(ledger_lines.lines_as_of(ledger, as_of, con))
        purchases = category_history.categorised_lines(bought, ledger_lines.read_products(ledger, con), timezone)
        recent = purchases.filter(purchases.sold_at >= ledger_lines.timestamp_literal(start))
        days = recent.select("customer_key", "category", "day").distinct()
        frame = con.execute(days.order_by("customer_key", "category", "day"))
    return _with_midnights(frame)


def load_product_days(
    ledger: Path,
    *,
    as_of: datetime,
    timezone: str,
    start: datetime | None = None,
    end: datetime | None = None,
    engine: str = DUCKDB,
) -> pd.DataFrame:
    """Purchase days by customer and product, known at as_of: columns customer_key, product_key, day.

    Days from `start` on and before `end`, where those are given; midnights without a zone, as in load_purchases. Sorted
    by all three.
    """
    with engines.open_engine(engine) as con:
        purchases = ledger_lines.purchased_lines(ledger_lines.lines_as_of(ledger, as_of, con))
        if start is not None:
            purchases = purchases.filter(purchases.sold_at >= ledger_lines.timestamp_literal(start))
        if end is not None:
            purchases = purchases.filter(purchases.sold_at < ledger_lines.timestamp_literal(end))
        day = expressions.local_day_number(purchases.sold_at, timezone)
        dated = purchases.select("customer_key", "product_key", day=day).distinct()
        frame = con.execute(dated.order_by("customer_key", "product_key", "day"))
    return _with_midnights(frame)


def _with_midnights(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with day numbers as midnights in column day."""
    return frame.assign(day=pd.to_datetime(frame["day"], unit="D"))


def load_baskets(
    ledger: Path, *, as_of: datetime, start: datetime, end: datetime, engine: str = DUCKDB
) -> pd.DataFrame:
    """Products bought per customer from `start` until before `end`, known at as_of.

    Columns customer_key and product_keys (sorted array), one row per customer with a purchase.
    """
    first, last = ledger_lines.timestamp_literal(start), ledger_lines.timestamp_literal(end)
    with engines.open_engine(engine) as con:
        bought = ledger_lines.purchased_lines(ledger_lines.lines_as_of(ledger, as_of, con))
        window = bought.filter(bought.sold_at >= first, bought.sold_at < last)
        pairs = window.select("customer_key", "product_key").distinct()
        lists = pairs.group_by("customer_key").aggregate(product_keys=pairs.product_key.collect(order_by="product_key"))
        return con.execute(lists.order_by("customer_key"))


def load_products(ledger: Path) -> pd.DataFrame:
    """The catalogue: columns product_key, category, subcategory, department, brand; None where it has no value."""
    path = Path(ledger) / "products.parquet"
    word_columns = ("category", "subcategory", "department", "brand")
    if not path.exists():
        return pd.DataFrame(
            {"product_key": pd.Series(dtype="int64"), **{column: pd.Series(dtype=object) for column in word_columns}}
        )
    catalogue = pq.read_table(path, columns=["product_key", *word_columns]).to_pandas()
    return catalogue.sort_values("product_key", ignore_index=True)


def _validated_cutoffs(cutoffs: Sequence[datetime], as_of: datetime) -> list[datetime]:
    sorted_cutoffs = sorted({duckdb.to_utc(cutoff) for cutoff in cutoffs})
    if not sorted_cutoffs or sorted_cutoffs[-1] > duckdb.to_utc(as_of):
        raise InvalidCutoffs("give at least one cutoff, and none after as_of")
    return sorted_cutoffs


def customer_cutoff_pairs(customer_cutoffs: pd.DataFrame | None, as_of: datetime) -> pa.Table:
    """Distinct cutoffs of single customers, not after as_of: columns customer_key (int64), as_of (UTC)."""
    frame = pd.DataFrame({"customer_key": [], "event_timestamp": []}) if customer_cutoffs is None else customer_cutoffs
    timestamps = pd.to_datetime(frame["event_timestamp"], utc=True).dt.as_unit("us")
    pairs = pd.DataFrame({"customer_key": frame["customer_key"].astype("int64"), "as_of": timestamps})
    pairs = pairs[pairs["as_of"] <= duckdb.to_utc(as_of)].drop_duplicates()
    schema = pa.schema([("customer_key", pa.int64()), ("as_of", pa.timestamp("us", "UTC"))])
    return pa.Table.from_pandas(pairs, schema=schema, preserve_index=False)


def _excluding_cutoffs(pairs: pa.Table, cutoffs: Sequence[datetime]) -> pa.Table:
    """Pairs at other cutoffs than those computed for all customers."""
    excluded = pa.array([duckdb.to_utc(cutoff) for cutoff in cutoffs], pairs["as_of"].type)
    return pairs.filter(pc.invert(pc.is_in(pairs["as_of"], excluded)))


def _split_groups(
    cutoff_tables: dict[str, pa.Table], latest_tables: dict[str, pa.Table]
) -> list[portions.CustomerGroup]:
    """The customers of the table training_customers at all cutoffs, and the others at the latest."""
    is_training = "customer_key in (select customer_key from training_customers)"
    return [
        portions.CustomerGroup(cutoff_tables, is_training),
        portions.CustomerGroup(latest_tables, f"not {is_training}"),
    ]


def _write_outputs(
    con: BaseBackend,
    ledger: Path,
    as_of: datetime,
    timezone: str,
    folder: Path,
    groups: Sequence[portions.CustomerGroup],
    tables: dict[str, pa.Table],
) -> dict[str, Path]:
    """Compute prices and every family in the engine of `con`; one file of every output, in `folder`, by its name.

    tables: training_customers and those of cutoffs, by name.
    """
    if isinstance(con, Backend):
        register_inputs(con, ledger, as_of, tables)
        prices = duckdb.write_outputs(con, duckdb.compile_plan(point_in_time.price_plan()), folder)
        return prices | portions.write_outputs(con, point_in_time.batch_plan(timezone), folder, groups)
    from features.snapshots import portion_tasks  # imported here: only a shop with this engine has Spark

    return portion_tasks.write_outputs(con, ledger, as_of, timezone, folder, groups, tables)


def remove_partial_files(out: Path) -> None:
    """Remove partial files and portions of runs that were killed."""
    for partial in (*Path(out).glob("*/.part.*.parquet"), *Path(out).glob(".portions.*")):
        if not _is_running(int(partial.name.split(".")[2])):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _day_to_date(day: int) -> date:
    return duckdb.EPOCH + timedelta(days=day)
