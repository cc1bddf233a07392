"""Spark and DuckDB give the same tables of the whole demo. Needs half an hour at most, PySpark and Java."""

import shutil

import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'regulars[spark]'")
if not shutil.which("java"):
    pytest.skip("there is no Java: apt-get install openjdk-17-jre-headless", allow_module_level=True)

from features.snapshots import snapshot


@pytest.mark.acceptance
def test_all_tables_of_the_whole_demo_are_those_of_duckdb(whole_ledger, ledger_kit, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("REGULARS_SPARK_MASTER", "local[2]")
    contacts = pq.read_table(whole_ledger / "interactions.parquet", filters=[("kind", "==", "received")]).to_pandas()
    deliveries = contacts.rename(columns={"happened_at": "event_timestamp"})
    for engine in ("spark", "duckdb"):
        snapshot.write_snapshot(
            whole_ledger, tmp_path / engine, as_of=ledger_kit.now, timezone=ledger_kit.zone, engine=engine,
            cutoffs=[*ledger_kit.midnight_cutoffs, ledger_kit.noon], list_cutoffs=[ledger_kit.now, ledger_kit.noon],
            customer_cutoffs=deliveries,
        )  # fmt: skip
    ledger_kit.assert_equal_tables(tmp_path / "spark", tmp_path / "duckdb")
