"""Spark computes the features of DuckDB, from the same expressions, whatever happens to its tasks."""

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import ibis
import pandas as pd
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'regulars[spark]'")
if not shutil.which("java"):
    pytest.skip("there is no Java: apt-get install openjdk-17-jre-headless", allow_module_level=True)

# Java's optimising compiler costs more than it saves in a shop of this size.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m")

from features.engine import engines, ledger_lines, spark
from features.engine.query_plan import QueryPlan
from features.snapshots import snapshot

ZONE = "Europe/Berlin"


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


@ibis.udf.scalar.builtin
def checked(key: int) -> int:
    """The key itself; a function of the test, which may fail."""


def one_output() -> QueryPlan:
    plan = QueryPlan()
    sold = ibis.table(ledger_lines.LEDGER_SCHEMA, name="sold")
    plan.add_output("keys", sold.select(customer_key=checked(sold.customer_key)).order_by("customer_key"))
    return plan


def write_keys(check: Callable[[int], int], ledger: Path, out: Path) -> Path:
    """The customers of a ledger, one row a line, written by tasks that call `check`."""
    with engines.open_engine("spark") as con:
        con.create_view("sold", ledger_lines.read_lines(ledger, con))
        con.session.udf.register("checked", check, "bigint")
        return spark.write_outputs(con, one_output(), out)["keys"]


def test_a_task_whose_process_dies_once_is_tried_again(ledger_kit, tmp_path) -> None:
    lines = [ledger_kit.line(customer, ledger_kit.at("2026-03-01 09:00")) for customer in range(50)]
    flag = str(tmp_path / "died")

    def die_once(key: int) -> int:
        if key == 7 and not Path(flag).exists():
            Path(flag).touch()
            os._exit(9)
        return key

    path = write_keys(die_once, ledger_kit.write_ledger(tmp_path / "ledger", lines), tmp_path)
    assert Path(flag).exists()
    assert pq.read_table(path)["customer_key"].to_pylist() == list(range(50))


def test_a_task_that_always_fails_leaves_no_output(ledger_kit, tmp_path) -> None:
    lines = [ledger_kit.line(customer, ledger_kit.at("2026-03-01 09:00")) for customer in range(5)]

    def refuse(key: int) -> int:
        raise ValueError("this machine has a fault")

    with pytest.raises(Exception, match="this machine has a fault"):
        write_keys(refuse, ledger_kit.write_ledger(tmp_path / "ledger", lines), tmp_path)
    assert not (tmp_path / "keys.parquet").exists()


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
