"""Portions: a run over portions of customers gives the tables of one run over all of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from features.engine import duckdb
from features.snapshots import portions, snapshot


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portions, "MAX_ROWS", 80_000)


def split(rows_by_customer: dict[int, int], max_rows: int) -> list[tuple[int, int]]:
    con = duckdb.connect()
    keys = [key for key, count in rows_by_customer.items() for _ in range(count)]
    con.con.register("sold", pa.table({"customer_key": pa.array(keys, pa.int64())}))
    con.con.register("interactions", pa.table({"customer_key": pa.array([], pa.int64())}))
    return portions.split_customers(con, max_rows)


def test_no_portion_has_more_rows_than_allowed_and_no_customer_is_left_out() -> None:
    assert split({1: 5, 2: 5, 4: 3, 9: 4}, 10) == [(1, 2), (4, 9)]


def test_a_customer_with_too_many_rows_is_a_portion_alone() -> None:
    assert split({1: 2, 2: 40, 3: 2}, 10) == [(1, 1), (2, 2), (3, 3)]


def test_without_customers_there_is_no_portion() -> None:
    assert split({}, 10) == []


def test_portions_give_the_same_tables(real_ledger, real_snapshot, ledger_kit, small_portions, tmp_path: Path) -> None:
    cutoffs = sorted(pd.read_parquet(real_snapshot / "rhythm" / "part.parquet")["event_timestamp"].unique())
    counts = snapshot.write_snapshot(
        real_ledger, tmp_path, as_of=ledger_kit.now, cutoffs=cutoffs, timezone=ledger_kit.zone,
        list_cutoffs=[ledger_kit.now, ledger_kit.noon],
    )  # fmt: skip
    assert set(counts) == {path.parent.name for path in real_snapshot.glob("*/part.parquet")}
    for name, count in counts.items():
        whole = pd.read_parquet(real_snapshot / name / "part.parquet")
        assert count == len(whole)
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / name / "part.parquet"), whole, obj=name)


def test_a_run_leaves_no_portion_behind(real_ledger, ledger_kit, small_portions, tmp_path: Path) -> None:
    snapshot.write_snapshot(
        real_ledger, tmp_path, as_of=ledger_kit.noon, cutoffs=[ledger_kit.noon], timezone=ledger_kit.zone
    )
    assert not list(tmp_path.glob(".portions.*"))
    assert not list(tmp_path.glob("*/.part.*"))


def test_customers_from_whom_nothing_is_learned_have_rows_at_the_latest_cutoff_only(
    real_ledger, real_snapshot, ledger_kit, small_portions, tmp_path: Path
) -> None:
    rhythm = pd.read_parquet(real_snapshot / "rhythm" / "part.parquet")
    chosen = np.sort(rhythm["customer_key"].unique())[::3]
    snapshot.write_snapshot(
        real_ledger, tmp_path, as_of=ledger_kit.now, cutoffs=sorted(rhythm["event_timestamp"].unique()),
        timezone=ledger_kit.zone, list_cutoffs=[ledger_kit.now, ledger_kit.noon], training_customers=chosen,
    )  # fmt: skip
    for path in real_snapshot.glob("*/part.parquet"):
        whole, name = pd.read_parquet(path), path.parent.name
        if name != "prices":
            is_latest = whole["event_timestamp"] == pd.Timestamp(ledger_kit.now)
            whole = whole[whole["customer_key"].isin(chosen) | is_latest].reset_index(drop=True)
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / name / "part.parquet"), whole, obj=name)


def test_nothing_is_learned_from_anybody(real_ledger, ledger_kit, tmp_path: Path) -> None:
    snapshot.write_snapshot(
        real_ledger, tmp_path, as_of=ledger_kit.now, cutoffs=[ledger_kit.noon, ledger_kit.now],
        timezone=ledger_kit.zone, training_customers=np.array([], np.int64),
    )  # fmt: skip
    rhythm = pd.read_parquet(tmp_path / "rhythm" / "part.parquet")
    assert set(rhythm["event_timestamp"]) == {pd.Timestamp(ledger_kit.now)}
