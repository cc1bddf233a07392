"""Every drawer at the till makes the same promises: SQLite in the home, Redis, PostgreSQL."""

import shutil
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.snapshots import snapshot
from features.store import feature_store

KINDS = ("sqlite", "redis", "postgres")


@pytest.fixture(scope="module")
def snapshots(ledger_kit, tmp_path_factory) -> Path:
    """Some customers of a lively shop, written once; every test has its own copy."""
    folder = tmp_path_factory.mktemp("written")
    ledger = ledger_kit.build(folder / "ledger", **ledger_kit.bazaar(customers=12))
    as_of = ledger_kit.at("2026-05-01 00:00")
    snapshot.write_snapshot(ledger, folder / "features", as_of=as_of, cutoffs=[as_of], timezone="UTC")
    return folder / "features"


@pytest.fixture(params=KINDS)
def address(request) -> str | None:
    return None if request.param == "sqlite" else request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def opened(address, snapshots, ledger_kit, tmp_path) -> feature_store.FeatureStore:
    opened = feature_store.open_store(Path(shutil.copytree(snapshots, tmp_path / "features")), address)
    opened.apply()
    opened.materialise(ledger_kit.at("2026-05-01 00:00"))
    return opened


def pushed(opened: feature_store.FeatureStore, moment, recency: float, customer: int = 1) -> None:
    rows = pd.read_parquet(opened.folder / "rhythm" / "part.parquet").query("customer_key == @customer")
    opened.push("rhythm", rows.assign(recency_days=recency, event_timestamp=moment))


def recency(opened: feature_store.FeatureStore, customer: int = 1) -> float:
    return float(opened.online_features("churn_v1", [customer]).recency_days.item())


def test_what_is_served_is_what_was_written(opened, ledger_kit) -> None:
    for service in ("churn_v1", "offers_v1", "restock_v1"):
        family = "rhythm" if service != "offers_v1" else "shelf"
        keys = pd.read_parquet(opened.folder / family / "part.parquet", columns=["customer_key", "event_timestamp"])
        offline, online = (
            opened.historical_features(service, keys),
            opened.online_features(service, keys.customer_key.tolist()),
        )
        assert (online.event_timestamp == ledger_kit.at("2026-05-01 00:00")).all()
        for name in opened.feature_names(service):
            for left, right in zip(offline[name], online[name], strict=True):
                np.testing.assert_array_equal(left, right)


def test_older_never_overwrites_newer_and_equal_is_written(opened, ledger_kit) -> None:
    moment = ledger_kit.at("2026-05-02 10:00") + timedelta(microseconds=123456)
    pushed(opened, moment, 99.0)
    pushed(opened, moment - timedelta(microseconds=1), 55.0)
    assert recency(opened) == 99
    assert opened.online_features("churn_v1", [1]).event_timestamp.item() == moment
    pushed(opened, moment, 66.0)
    assert recency(opened) == 66
    opened.materialise(ledger_kit.at("2026-05-01 00:00"))
    assert recency(opened) == 66


def test_of_two_rows_at_once_the_newest_stays(opened, ledger_kit) -> None:
    row = pd.read_parquet(opened.folder / "rhythm" / "part.parquet").query("customer_key == 1")
    late, early = ledger_kit.at("2026-05-03 00:00"), ledger_kit.at("2026-05-02 00:00")
    rows = [row.assign(recency_days=days, event_timestamp=at) for days, at in ((7.0, late), (8.0, early))]
    opened.push("rhythm", pd.concat(rows))
    assert recency(opened) == 7


def test_of_two_writers_at_once_the_newest_wins(opened, address, ledger_kit) -> None:
    others = [feature_store.open_store(opened.folder, address) for _ in range(2)]
    moments = [ledger_kit.at("2026-05-02 00:00") + timedelta(microseconds=step) for step in range(30)]

    def write(writer: feature_store.FeatureStore, steps: list[int]) -> None:
        for step in steps:
            pushed(writer, moments[step], float(step))

    rising, falling = list(range(0, 30, 2)), list(range(29, 0, -2))
    threads = [
        threading.Thread(target=write, args=(writer, steps))
        for writer, steps in zip(others, (rising, falling), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recency(opened) == 29


def test_who_is_forgotten_is_nowhere(opened, ledger_kit) -> None:
    pushed(opened, ledger_kit.at("2026-05-02 00:00"), 99.0)
    opened.delete_customers([1, 777])
    for service in ("churn_v1", "offers_v1", "restock_v1", "recommender_v1"):
        assert opened.online_features(service, [1]).event_timestamp.isna().all()
    for part in opened.folder.glob("*/part.parquet"):
        table = pd.read_parquet(part)
        if "customer_key" in table:
            assert 1 not in set(table.customer_key)
            assert len(table)
    assert opened.materialise(ledger_kit.at("2026-05-01 00:00"))["rhythm"] == 11
    assert opened.online_features("churn_v1", [1]).event_timestamp.isna().all()
    assert recency(opened, 2) >= 0
    opened.delete_customers([1])


def test_a_customer_come_back_is_served_again(opened, ledger_kit) -> None:
    row = pd.read_parquet(opened.folder / "rhythm" / "part.parquet").query("customer_key == 1")
    opened.delete_customers([1])
    opened.push("rhythm", row.assign(event_timestamp=ledger_kit.at("2026-04-01 00:00")))
    assert opened.online_features("churn_v1", [1]).event_timestamp.item() == ledger_kit.at("2026-04-01 00:00")


def test_two_addresses_or_a_wrong_one_are_told_without_the_password(tmp_path) -> None:
    with pytest.raises(ValueError, match="postgresql://") as refused:
        feature_store.open_store(tmp_path, "mongodb://shop:quiet@cache:1")
    assert "quiet" not in str(refused.value)


def test_forgetting_in_a_home_that_never_saw_a_night_is_no_error(tmp_path) -> None:
    feature_store.open_store(tmp_path).delete_customers([1])


def test_half_written_files_of_a_killed_run_are_swept_away(snapshots, tmp_path) -> None:
    folder = Path(shutil.copytree(snapshots, tmp_path / "features"))
    left = folder / "rhythm" / ".part.999999999.parquet"
    shutil.copy(folder / "rhythm" / "part.parquet", left)
    snapshot.remove_partial_files(folder)
    assert not left.exists()
    assert (folder / "rhythm" / "part.parquet").exists()
