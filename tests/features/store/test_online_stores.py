"""Every online store behaves alike: SQLite in the home, Redis, PostgreSQL."""

import shutil
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg
import pytest

from features.snapshots import snapshot
from features.store import feature_store

STORE_TYPES = ("sqlite", "redis", "postgres")


@pytest.fixture(scope="module")
def snapshots(ledger_kit, tmp_path_factory) -> Path:
    """Twelve customers of a small shop, written once; every test has its own copy."""
    folder = tmp_path_factory.mktemp("written")
    ledger = ledger_kit.write_ledger(folder / "ledger", **ledger_kit.random_records(customers=12))
    as_of = ledger_kit.at("2026-05-01 00:00")
    snapshot.write_snapshot(ledger, folder / "features", as_of=as_of, cutoffs=[as_of], timezone="UTC")
    return folder / "features"


@pytest.fixture(params=STORE_TYPES)
def address(request) -> str | None:
    return None if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def store(address, snapshots, ledger_kit, tmp_path) -> feature_store.FeatureStore:
    store = feature_store.open_store(Path(shutil.copytree(snapshots, tmp_path / "features")), address)
    store.apply()
    store.materialise(ledger_kit.at("2026-05-01 00:00"))
    return store


def push_recency(store: feature_store.FeatureStore, pushed_at, recency: float, customer: int = 1) -> None:
    rows = pd.read_parquet(store.folder / "rhythm" / "part.parquet").query("customer_key == @customer")
    store.push("rhythm", rows.assign(recency_days=recency, event_timestamp=pushed_at))


def recency(store: feature_store.FeatureStore, customer: int = 1) -> float:
    return float(store.online_features("churn_v1", [customer]).recency_days.item())


def test_served_features_equal_those_written(store, ledger_kit) -> None:
    for service in ("churn_v1", "offers_v1", "restock_v1"):
        family = "rhythm" if service != "offers_v1" else "shelf"
        keys = pd.read_parquet(store.folder / family / "part.parquet", columns=["customer_key", "event_timestamp"])
        offline, online = (
            store.historical_features(service, keys),
            store.online_features(service, keys.customer_key.tolist()),
        )
        assert (online.event_timestamp == ledger_kit.at("2026-05-01 00:00")).all()
        for name in store.feature_names(service):
            for offline_value, online_value in zip(offline[name], online[name], strict=True):
                np.testing.assert_array_equal(offline_value, online_value)


def test_older_never_overwrites_newer_and_equal_is_written(store, ledger_kit) -> None:
    pushed_at = ledger_kit.at("2026-05-02 10:00") + timedelta(microseconds=123456)
    push_recency(store, pushed_at, 99.0)
    push_recency(store, pushed_at - timedelta(microseconds=1), 55.0)
    assert recency(store) == 99
    assert store.online_features("churn_v1", [1]).event_timestamp.item() == pushed_at
    push_recency(store, pushed_at, 66.0)
    assert recency(store) == 66
    store.materialise(ledger_kit.at("2026-05-01 00:00"))
    assert recency(store) == 66


def test_the_newest_of_two_rows_in_one_push_is_served(store, ledger_kit) -> None:
    row = pd.read_parquet(store.folder / "rhythm" / "part.parquet").query("customer_key == 1")
    late, early = ledger_kit.at("2026-05-03 00:00"), ledger_kit.at("2026-05-02 00:00")
    rows = [row.assign(recency_days=days, event_timestamp=at) for days, at in ((7.0, late), (8.0, early))]
    store.push("rhythm", pd.concat(rows))
    assert recency(store) == 7


def test_the_newest_row_of_two_concurrent_writers_is_served(store, address, ledger_kit) -> None:
    writers = [feature_store.open_store(store.folder, address) for _ in range(2)]
    push_times = [ledger_kit.at("2026-05-02 00:00") + timedelta(microseconds=step) for step in range(30)]

    def write(writer: feature_store.FeatureStore, steps: list[int]) -> None:
        for step in steps:
            push_recency(writer, push_times[step], float(step))

    rising, falling = list(range(0, 30, 2)), list(range(29, 0, -2))
    threads = [
        threading.Thread(target=write, args=(writer, steps))
        for writer, steps in zip(writers, (rising, falling), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recency(store) == 29


def test_a_deleted_customer_is_in_no_file_and_no_store(store, ledger_kit) -> None:
    push_recency(store, ledger_kit.at("2026-05-02 00:00"), 99.0)
    store.delete_customers([1, 777])
    for service in ("churn_v1", "offers_v1", "restock_v1", "recommender_v1"):
        assert store.online_features(service, [1]).event_timestamp.isna().all()
    for part in store.folder.glob("*/part.parquet"):
        table = pd.read_parquet(part)
        if "customer_key" in table:
            assert 1 not in set(table.customer_key)
            assert len(table)
    assert store.materialise(ledger_kit.at("2026-05-01 00:00"))["rhythm"] == 11
    assert store.online_features("churn_v1", [1]).event_timestamp.isna().all()
    assert recency(store, 2) >= 0
    store.delete_customers([1])


def test_a_customer_who_returns_after_deletion_is_served_again(store, ledger_kit) -> None:
    row = pd.read_parquet(store.folder / "rhythm" / "part.parquet").query("customer_key == 1")
    store.delete_customers([1])
    store.push("rhythm", row.assign(event_timestamp=ledger_kit.at("2026-04-01 00:00")))
    assert store.online_features("churn_v1", [1]).event_timestamp.item() == ledger_kit.at("2026-04-01 00:00")


def test_an_unsupported_address_is_refused_without_its_password(tmp_path) -> None:
    with pytest.raises(ValueError, match="postgresql://") as refused:
        feature_store.open_store(tmp_path, "mongodb://shop:quiet@cache:1")
    assert "quiet" not in str(refused.value)


def test_deleting_from_a_home_without_a_run_is_no_error(tmp_path) -> None:
    feature_store.open_store(tmp_path).delete_customers([1])


def test_partial_files_of_a_killed_run_are_removed(snapshots, tmp_path) -> None:
    folder = Path(shutil.copytree(snapshots, tmp_path / "features"))
    partial_file = folder / "rhythm" / ".part.999999999.parquet"
    shutil.copy(folder / "rhythm" / "part.parquet", partial_file)
    snapshot.remove_partial_files(folder)
    assert not partial_file.exists()
    assert (folder / "rhythm" / "part.parquet").exists()


def test_a_server_that_was_restarted_is_no_outage(snapshots, ledger_kit, tmp_path, postgres_url) -> None:
    """The connection of a thread is lost without anybody's fault; reading and writing open another one."""
    shutil.copytree(snapshots, tmp_path / "home")
    store = feature_store.open_store(tmp_path / "home", postgres_url)
    store.apply()
    store.materialise(ledger_kit.at("2026-05-01 00:00"))
    before = recency(store)
    _end_connections(postgres_url)
    assert recency(store) == before
    _end_connections(postgres_url)
    push_recency(store, ledger_kit.at("2026-05-02 00:00"), 99)
    assert recency(store) == 99


def test_a_registry_in_postgresql_serves_as_the_file_does(
    snapshots, ledger_kit, tmp_path, new_database, monkeypatch
) -> None:
    as_of = ledger_kit.at("2026-05-01 00:00")
    frames = []
    for address in (None, new_database()):
        if address:
            monkeypatch.setenv("REGULARS_FEAST_REGISTRY", address)
        store = feature_store.open_store(Path(shutil.copytree(snapshots, tmp_path / str(bool(address)))))
        store.apply()
        store.materialise(as_of)
        entities = pd.DataFrame({"customer_key": [1, 2, 999], "event_timestamp": as_of})
        frames.append((store.online_features("churn_v1", [1, 999]), store.historical_features("churn_v1", entities)))
    assert not (tmp_path / "True" / "feast" / "registry.db").exists()
    for by_file, by_address in zip(*frames, strict=True):
        pd.testing.assert_frame_equal(by_file, by_address)


def _end_connections(url: str) -> None:
    """End every connection to this database, as a restart of the server does."""
    address = url.replace("+psycopg", "")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
