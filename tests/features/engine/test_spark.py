"""Spark computes the features of DuckDB, from the same expressions, whatever happens to its tasks."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'regulars[spark]'")
if not shutil.which("java"):
    pytest.skip("there is no Java: apt-get install openjdk-17-jre-headless", allow_module_level=True)

from features.snapshots import snapshot

ZONE = "Europe/Berlin"
TABLES = ("rhythm", "spend", "taste", "engagement", "shelf", "needs", "staples", "prices")


def assert_equal_tables(spark: Path, duckdb: Path, tables: tuple[str, ...] = TABLES) -> None:
    for name in tables:
        frames = [pd.read_parquet(folder / name / "part.parquet") for folder in (spark, duckdb)]
        for frame in frames:
            for column in frame.select_dtypes(object):
                frame[column] = frame[column].map(lambda each: each.tolist() if isinstance(each, np.ndarray) else each)
        lists = [column for column in frames[1] if frames[1][column].map(type).eq(list).any()]
        pd.testing.assert_frame_equal(
            *(frame.drop(columns=lists) for frame in frames), rtol=1e-6, atol=1e-6, check_dtype=True, obj=name
        )
        for column in lists:
            ours, theirs = (frame[column].explode().reset_index(drop=True) for frame in frames)
            assert (frames[0][column].map(len) == frames[1][column].map(len)).all(), (name, column)
            as_numbers = column != "categories"
            pd.testing.assert_series_equal(
                *(each.astype(float) if as_numbers else each for each in (ours, theirs)), rtol=1e-6, atol=1e-6
            )


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
    assert_equal_tables(spark, duckdb)
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
        ours, theirs = (load(ledger, as_of=as_of, engine=engine, **moments) for engine in ("spark", "duckdb"))
        assert len(theirs)
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-6, obj=load.__name__)
    gaps = [snapshot.gap_quantile(ledger, as_of=as_of, timezone=ZONE, engine=each) for each in ("spark", "duckdb")]
    assert gaps[0] == pytest.approx(gaps[1])


def test_a_shop_without_sales_has_tables_without_rows(ledger_kit, tmp_path) -> None:
    as_of = ledger_kit.at("2026-04-20 13:00")
    spark, duckdb = write_both(tmp_path / "ledger", tmp_path, as_of=as_of, cutoffs=[as_of])
    for name in TABLES:
        tables = [pq.read_table(folder / name / "part.parquet") for folder in (spark, duckdb)]
        assert tables[0].schema.equals(tables[1].schema), name
        assert len(tables[0]) == len(tables[1]) == 0
    assert snapshot.load_purchases(tmp_path / "ledger", as_of=as_of, timezone=ZONE, engine="spark").empty


def test_a_task_that_is_lost_once_is_tried_again(ledger_kit, tmp_path, monkeypatch) -> None:
    """The first task of a plan's first output ends as if its executor had been lost."""
