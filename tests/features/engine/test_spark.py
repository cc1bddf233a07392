"""Spark computes the features of DuckDB, from the same expressions, whatever happens to its tasks."""

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'regulars[spark]'")
if not shutil.which("java"):
    pytest.skip("there is no Java: apt-get install openjdk-17-jre-headless", allow_module_level=True)

# Java's optimising compiler costs more than it saves in a shop of this size.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m")

from features.engine import engines, ledger_lines, spark
from features.snapshots import portion_tasks, snapshot

ZONE = "Europe/Berlin"
AS_OF = datetime(2026, 4, 20, 13, tzinfo=UTC)


def write_both(ledger: Path, out: Path, **moments: Any) -> tuple[Path, Path]:
    for engine in ("spark", "duckdb"):
        snapshot.write_snapshot(ledger, out / engine, timezone=ZONE, engine=engine, **moments)
    return out / "spark", out / "duckdb"


def test_all_tables_of_a_small_shop_are_those_of_duckdb(ledger_kit, tmp_path) -> None:
    ledger = ledger_kit.write_ledger(tmp_path / "ledger", **ledger_kit.random_records(customers=25))
    as_of, noon = ledger_kit.at("2026-04-20 13:00"), ledger_kit.at("2026-03-03 11:00")
    own_cutoffs = pd.DataFrame(
        {"customer_key": [1, 2, 3], "event_timestamp": [noon, as_of, ledger_kit.at("2026-02-02")]}
    )
    spark, duckdb = write_both(
        ledger, tmp_path, as_of=as_of, cutoffs=[ledger_kit.at("2026-02-01 00:00", ZONE), noon, as_of],
        list_cutoffs=[noon, as_of], customer_cutoffs=own_cutoffs,
    )  # fmt: skip
    ledger_kit.assert_equal_tables(spark, duckdb)
    assert not list(spark.glob(".portions.*"))


def test_labels_are_those_of_duckdb(ledger_kit, tmp_path) -> None:
    ledger = ledger_kit.write_ledger(tmp_path / "ledger", **ledger_kit.random_records(customers=10))
    as_of, start = ledger_kit.at("2026-04-20 13:00"), ledger_kit.at("2026-03-10 09:30")
    loaders = {
        snapshot.load_purchases: {"timezone": ZONE},
        snapshot.load_category_days: {"timezone": ZONE, "start": start},
        snapshot.load_product_days: {"timezone": ZONE, "start": start, "end": ledger_kit.at("2026-04-01 12:00")},
        snapshot.load_baskets: {"start": start, "end": as_of},
    }
    for load, moments in loaders.items():
        spark_frame, duckdb_frame = (
            load(ledger, as_of=as_of, engine=engine, **moments) for engine in ("spark", "duckdb")
        )
        assert len(duckdb_frame)
        pd.testing.assert_frame_equal(spark_frame, duckdb_frame, rtol=1e-6, obj=load.__name__)
    gaps = [snapshot.gap_quantile(ledger, as_of=as_of, timezone=ZONE, engine=each) for each in ("spark", "duckdb")]
    assert gaps[0] == pytest.approx(gaps[1])


def test_a_shop_without_sales_has_tables_without_rows(ledger_kit, tmp_path) -> None:
    as_of = ledger_kit.at("2026-04-20 13:00")
    spark, duckdb = write_both(tmp_path / "ledger", tmp_path, as_of=as_of, cutoffs=[as_of])
    for name in ledger_kit.tables:
        tables = [pq.read_table(folder / name / "part.parquet") for folder in (spark, duckdb)]
        assert tables[0].schema.names == tables[1].schema.names, name
        assert tables[0].schema.types == tables[1].schema.types, name
        assert len(tables[0]) == len(tables[1]) == 0
    assert snapshot.load_purchases(tmp_path / "ledger", as_of=as_of, timezone=ZONE, engine="spark").empty


def exchange_sold(ledger: Path, last_keys: list[int], write: Callable[[Path, int, dict[str, pa.Table]], None]) -> None:
    """Bring the lines and interactions of portions of customers together, and write each to a folder by a task."""
    with engines.open_engine("spark") as con:
        ledger_lines.create_record_views(con, ledger, AS_OF)
        spark.exchange_rows(con, ("sold", "interactions"), last_keys, write, ledger.parent)


def write_keys(folder: Path, number: int, rows: dict[str, pa.Table]) -> None:
    pq.write_table(rows["sold"].select(["customer_key"]), folder / f"{number}.parquet")


def read_keys(folder: Path, number: int) -> list[int]:
    return sorted(pq.read_table(folder / f"{number}.parquet")["customer_key"].to_pylist())


def test_each_portion_has_all_rows_of_its_customers(ledger_kit, tmp_path) -> None:
    lines = [ledger_kit.line(customer, ledger_kit.at("2026-03-01 09:00")) for customer in [*range(50), *range(40, 60)]]
    interactions = [
        ledger_kit.interaction(customer, ledger_kit.at("2026-03-02 09:00"), "received") for customer in (7, 59)
    ]
    ledger = ledger_kit.write_ledger(tmp_path / "ledger", lines, interactions=interactions)

    def write(folder: Path, number: int, rows: dict[str, pa.Table]) -> None:
        assert rows["sold"].schema.field("sold_at").type == pa.timestamp("us", "UTC")
        write_keys(folder, number, rows)
        pq.write_table(rows["interactions"], folder / f"interactions-{number}.parquet")

    exchange_sold(ledger, [6, 7, 8, 44, 59], write)
    assert read_keys(tmp_path, 0) == list(range(7))
    assert read_keys(tmp_path, 1) == [7]
    assert read_keys(tmp_path, 3) == sorted([*range(9, 45), *range(40, 45)])
    assert read_keys(tmp_path, 4) == sorted([*range(45, 50), *range(45, 60)])
    interacted = [pq.read_table(tmp_path / f"interactions-{n}.parquet")["customer_key"].to_pylist() for n in range(5)]
    assert interacted == [[], [7], [], [], [59]]


def test_a_task_whose_process_dies_once_is_tried_again(ledger_kit, tmp_path) -> None:
    lines = [ledger_kit.line(customer, ledger_kit.at("2026-03-01 09:00")) for customer in range(50)]

    def die_once(folder: Path, number: int, rows: dict[str, pa.Table]) -> None:
        if number == 1 and not (folder / "died").exists():
            (folder / "died").touch()
            os._exit(9)
        pq.write_table(rows["sold"].select(["customer_key"]), folder / f"{number}.parquet")

    exchange_sold(ledger_kit.write_ledger(tmp_path / "ledger", lines), [9, 29, 49], die_once)
    assert (tmp_path / "died").exists()
    assert [read_keys(tmp_path, number) for number in range(3)] == [
        [*range(10)],
        [*range(10, 30)],
        [*range(30, 50)],
    ]


def test_a_task_that_always_fails_fails_the_run(ledger_kit, tmp_path) -> None:
    lines = [ledger_kit.line(customer, ledger_kit.at("2026-03-01 09:00")) for customer in range(5)]

    def refuse(folder: Path, number: int, rows: dict[str, pa.Table]) -> None:
        raise ValueError("this machine has a fault")

    with pytest.raises(Exception, match="this machine has a fault"):
        exchange_sold(ledger_kit.write_ledger(tmp_path / "ledger", lines), [4], refuse)


def test_portions_of_a_shop_without_rows_are_written_too(ledger_kit, tmp_path) -> None:
    ledger = ledger_kit.write_ledger(tmp_path / "ledger", [])
    exchange_sold(ledger, [0], write_keys)
    assert read_keys(tmp_path, 0) == []


def test_many_portions_are_merged_in_the_order_of_the_customers(ledger_kit, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(portion_tasks, "MAX_ROWS", 40)
    ledger = ledger_kit.write_ledger(tmp_path / "ledger", **ledger_kit.random_records(customers=12))
    as_of = ledger_kit.at("2026-04-20 13:00")
    training = np.array([2, 3, 5, 7, 11])
    folders = write_both(
        ledger, tmp_path, as_of=as_of, cutoffs=[ledger_kit.at("2026-03-01"), as_of], training_customers=training
    )
    ledger_kit.assert_equal_tables(*folders)


def test_a_failed_run_leaves_the_last_snapshot_as_it_was(ledger_kit, tmp_path) -> None:
    lines = [
        ledger_kit.line(1, ledger_kit.at("2026-03-01 09:00")),
        ledger_kit.line(1, ledger_kit.at("2026-04-01 09:00")),
    ]
    ledger, as_of = ledger_kit.write_ledger(tmp_path / "ledger", lines), ledger_kit.at("2026-04-20 13:00")
    snapshot.write_snapshot(ledger, tmp_path / "out", as_of=as_of, cutoffs=[as_of], timezone=ZONE)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.parquet")}
    month = ledger / "month=2026-04" / "part.parquet"
    month.write_bytes(month.read_bytes()[:-40])
    with pytest.raises(Exception, match="parquet"):
        snapshot.write_snapshot(ledger, tmp_path / "out", as_of=as_of, cutoffs=[as_of], timezone=ZONE, engine="spark")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_a_customer_with_very_many_lines_has_the_features_of_duckdb(ledger_kit, tmp_path) -> None:
    opened = ledger_kit.at("2026-01-01 08:00")
    lines = [
        ledger_kit.line(customer, opened + timedelta(minutes=7 * number), 1.0 + number % 50, product_key=number % 1_300)
        for customer, count in ((1, 20_000), (2, 3))
        for number in range(count)
    ]
    products = [{"product_key": number, "category": f"c{number % 40}"} for number in range(1_300)]
    ledger, as_of = ledger_kit.write_ledger(tmp_path / "ledger", lines, products), ledger_kit.at("2026-04-20 13:00")
    ledger_kit.assert_equal_tables(*write_both(ledger, tmp_path, as_of=as_of, cutoffs=[as_of]))


def test_portions_come_back_in_their_order() -> None:
    portions = [[1, 2], [3], []]
    assert list(spark.map_portions(lambda offset, keys: [offset + key for key in keys], 100, portions)) == [
        [101, 102],
        [103],
        [],
    ]


def test_without_portions_there_is_no_result() -> None:
    assert list(spark.map_portions(lambda offset, keys: offset, 100, [])) == []
