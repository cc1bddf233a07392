"""The store: training and serving read the same numbers, and Feast's habits do not reach the shop."""

import shutil
import sqlite3
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features import definitions
from features.engine import ledger_lines
from features.families import category_history, engagement, feast_views, product_history, recency_frequency
from features.snapshots import point_in_time, snapshot
from features.store import feature_store

NUMBERS = "churn_v1"


def filled(folder, ledger, as_of, *moments, timezone="UTC") -> feature_store.FeatureStore:
    """A store over a snapshot of a ledger, materialised as of its run."""
    snapshot.write_snapshot(ledger, folder, as_of=as_of, cutoffs=[as_of, *moments], timezone=timezone)
    opened = feature_store.open_store(folder)
    opened.apply()
    opened.materialise(as_of)
    return opened


@pytest.fixture(scope="module")
def snapshots(ledger_kit, tmp_path_factory):
    """Two customers on two days, written once; every test has its own copy."""
    folder = tmp_path_factory.mktemp("written")
    sold = [
        ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"), 10.0),
        ledger_kit.line(2, ledger_kit.at("2026-05-20 10:00"), 7.0),
    ]
    as_of, early = ledger_kit.at("2026-06-01 00:00"), ledger_kit.at("2026-05-10 00:00")
    ledger = ledger_kit.build(folder / "ledger", sold)
    snapshot.write_snapshot(ledger, folder / "features", as_of=as_of, cutoffs=[as_of, early], timezone="UTC")
    return folder / "features"


@pytest.fixture
def opened(snapshots, ledger_kit, tmp_path) -> feature_store.FeatureStore:
    opened = feature_store.open_store(Path(shutil.copytree(snapshots, tmp_path / "features")))
    opened.apply()
    opened.materialise(ledger_kit.at("2026-06-01 00:00"))
    return opened


def changed(opened: feature_store.FeatureStore, ledger_kit, moment: str, recency: float) -> None:
    """Push customer 1's rhythm with another recency, as of a moment."""
    rows = pd.read_parquet(opened.folder / "rhythm" / "part.parquet").query("customer_key == 1").tail(1)
    opened.push("rhythm", rows.assign(recency_days=recency, event_timestamp=ledger_kit.at(moment)))


def recency(opened: feature_store.FeatureStore) -> float:
    return float(opened.online_features(NUMBERS, [1]).recency_days.item())


def test_online_is_offline_for_every_real_customer(real_snapshot, ledger_kit) -> None:
    opened = feature_store.open_store(real_snapshot)
    opened.apply()
    opened.materialise(ledger_kit.now)
    rows = pd.read_parquet(real_snapshot / "rhythm" / "part.parquet", columns=["customer_key", "event_timestamp"])
    asked = rows[rows.event_timestamp == ledger_kit.now].reset_index(drop=True)
    assert len(asked) >= 500
    numbers, online = (
        opened.historical_features(NUMBERS, asked),
        opened.online_features(NUMBERS, asked.customer_key.tolist()),
    )
    assert (online.event_timestamp == ledger_kit.now).all()
    columns = opened.feature_names(NUMBERS)
    pd.testing.assert_frame_equal(numbers[columns], online[columns], check_exact=True)
    assert opened.feature_names("timing_v1") == columns
    shelves, served = (
        opened.historical_features("recommender_v1", asked),
        opened.online_features("recommender_v1", asked.customer_key.tolist()),
    )
    for name in opened.feature_names("recommender_v1"):
        assert all(map(np.array_equal, shelves[name], served[name]))
        assert shelves[name][0].dtype == served[name][0].dtype


def test_history_keeps_the_order_and_the_rows_of_the_question(opened, ledger_kit) -> None:
    early, late = ledger_kit.at("2026-05-10 00:00"), ledger_kit.at("2026-06-01 00:00")
    asked = pd.DataFrame(
        {"customer_key": [2, 1, 777, 1, 2, 2], "event_timestamp": [late, early, late, late, early, late]},
        index=list("fedcba"),
    )
    found = opened.historical_features(NUMBERS, asked)
    assert list(found.index) == list("fedcba")
    assert found.customer_key.tolist() == [2, 1, 777, 1, 2, 2]
    np.testing.assert_array_equal(found.recency_days, [12, 9, np.nan, 31, np.nan, 12])
    assert set(found.drop(columns=["customer_key", "event_timestamp"]).dtypes.astype(str)) == {"float64"}


def test_a_frame_in_nanoseconds_finds_files_in_microseconds(opened, ledger_kit) -> None:
    asked = pd.DataFrame({"customer_key": [1], "event_timestamp": pd.to_datetime(["2026-06-01"], utc=True)})
    assert asked.event_timestamp.dt.unit == "ns"
    for unit in ("ns", "us", "s"):
        found = opened.historical_features(
            NUMBERS, asked.assign(event_timestamp=asked.event_timestamp.dt.as_unit(unit))
        )
        assert found.recency_days.item() == 31


def test_history_before_the_first_snapshot_is_empty_and_still_there(opened, ledger_kit) -> None:
    asked = pd.DataFrame({"customer_key": [1, 2], "event_timestamp": [ledger_kit.at("2026-01-01 00:00")] * 2})
    assert opened.historical_features(NUMBERS, asked)[opened.feature_names(NUMBERS)].isna().all().all()
    shelves = opened.historical_features("recommender_v1", asked)
    assert shelves.product_keys.tolist() == [None, None]
    assert opened.historical_features(NUMBERS, asked.head(0)).empty


def test_a_changed_snapshot_changes_the_training_frame(opened, ledger_kit) -> None:
    asked = pd.DataFrame({"customer_key": [1], "event_timestamp": [ledger_kit.at("2026-06-01 00:00")]})
    before = opened.historical_features(NUMBERS, asked)
    path = opened.folder / "spend" / "part.parquet"
    pd.read_parquet(path).assign(spend_total=123.0).to_parquet(path)
    after = opened.historical_features(NUMBERS, asked)
    assert (before.spend_total.item(), after.spend_total.item()) == (10, 123)
    assert before.drop(columns="spend_total").equals(after.drop(columns="spend_total"))


def test_now_answers_in_the_order_of_the_keys(opened, ledger_kit) -> None:
    found = opened.online_features(NUMBERS, [2, 777, 1, 2])
    np.testing.assert_array_equal(found.recency_days, [12, np.nan, 31, 12])
    assert found.event_timestamp.isna().tolist() == [False, True, False, False]
    assert found.event_timestamp[0] == ledger_kit.at("2026-06-01 00:00")
    assert list(found.columns) == ["customer_key", "event_timestamp", *opened.feature_names(NUMBERS)]
    assert opened.now("recommender_v1", [1, 777]).product_keys.map(lambda keys: keys is None).tolist() == [False, True]
    assert opened.now(NUMBERS, []).empty


def test_before_anything_is_materialised_nobody_is_known(tmp_path) -> None:
    opened = feature_store.open_store(tmp_path)
    opened.apply()
    assert opened.online_features(NUMBERS, [1]).event_timestamp.isna().all()


def test_a_push_is_served_at_once(opened, ledger_kit) -> None:
    changed(opened, ledger_kit, "2026-06-02 00:00", 99.0)
    row = opened.online_features(NUMBERS, [1]).iloc[0]
    assert (row.recency_days, row.spend_total) == (99, 10)
    assert row.event_timestamp == ledger_kit.at("2026-06-02 00:00")


def test_an_older_push_never_overwrites(opened, ledger_kit) -> None:
    changed(opened, ledger_kit, "2026-06-02 00:00", 99.0)
    changed(opened, ledger_kit, "2026-06-01 23:59:59.999999", 55.0)
    assert recency(opened) == 99
    changed(opened, ledger_kit, "2026-06-02 00:00", 66.0)
    assert recency(opened) == 66


def test_an_older_night_never_overwrites_a_push_or_a_later_night(opened, ledger_kit) -> None:
    changed(opened, ledger_kit, "2026-06-02 00:00", 99.0)
    opened.materialise(ledger_kit.at("2026-06-01 00:00"))
    opened.materialise(ledger_kit.at("2026-05-10 00:00"))
    assert recency(opened) == 99
    assert opened.online_features(NUMBERS, [2]).recency_days.item() == 12


def test_materialising_takes_exactly_the_rows_of_the_latest_moment(opened, ledger_kit) -> None:
    views = ("needs", "rhythm", "shelf", "spend", "taste")
    nobody = {"engagement": 0}
    assert opened.materialise(ledger_kit.at("2026-05-15 00:00")) == nobody | dict.fromkeys(views, 1)
    assert opened.materialise(ledger_kit.at("2026-06-07 00:00")) == nobody | dict.fromkeys(views, 2)
    with pytest.raises(feature_store.NoSnapshot):
        opened.materialise(ledger_kit.at("2026-01-01 00:00"))


def test_materialising_again_changes_nothing(opened, ledger_kit) -> None:
    def rows() -> list[tuple]:
        with sqlite3.connect(opened.folder / "feast" / "online.db") as con:
            return con.execute('select * from "regulars_rhythm" order by entity_key, feature_name').fetchall()

    before = rows()
    opened.materialise(ledger_kit.at("2026-06-01 00:00"))
    assert before == rows()
    assert len(before) == 2 * len(recency_frequency.columns(ledger_lines.VISIBLE_DAYS))


def test_serving_goes_on_while_a_night_materialises_or_was_killed_doing_so(opened) -> None:
    from feast.feature_view import FeatureViewState

    view = opened.feast.get_feature_view("rhythm")
    view.state = FeatureViewState.MATERIALIZING
    opened.feast.registry.apply_feature_view(view, opened.feast.project, commit=True)
    assert recency(feature_store.open_store(opened.folder)) == 31


def test_applying_again_keeps_what_is_served(opened) -> None:
    opened.apply()
    assert recency(opened) == 31


def test_the_online_file_lets_readers_read_while_somebody_writes(opened) -> None:
    path = opened.folder / "feast" / "online.db"
    with sqlite3.connect(path) as con:
        assert con.execute("pragma journal_mode").fetchone() == ("wal",)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("begin immediate")
    assert recency(feature_store.open_store(opened.folder)) == 31
    writer.execute("rollback")
    writer.close()


def test_times_survive_to_the_microsecond_in_any_zone_of_the_machine(ledger_kit, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        moment = ledger_kit.at("2026-03-08 02:30:00.123456")  # an hour that New York's clocks skip
        opened = filled(
            tmp_path, ledger_kit.build(tmp_path / "l", [ledger_kit.line(1, moment - timedelta(days=3))]), moment
        )
        row = opened.online_features(NUMBERS, [1]).iloc[0]
        assert (row.recency_days, row.event_timestamp) == (3, moment)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_two_homes_in_one_process_keep_their_own_answers(shop, ledger_kit, tmp_path) -> None:
    as_of = ledger_kit.at("2026-06-01 00:00")
    near = filled(tmp_path / "a", shop([ledger_kit.line(1, ledger_kit.at("2026-05-31 10:00"))], name="near"), as_of)
    far = filled(tmp_path / "b", shop([ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"))], name="far"), as_of)
    asked = pd.DataFrame({"customer_key": [1], "event_timestamp": [as_of]})
    for opened, days in ((near, 1), (far, 31), (near, 1)):
        assert recency(opened) == days
        assert opened.historical_features(NUMBERS, asked).recency_days.item() == days


def test_no_feature_has_a_name_that_feast_would_lose(opened) -> None:
    for service in definitions.SERVICES:
        feast_views.check_column_names(dict.fromkeys(opened.feature_names(service), "Float64"))
    for lost in ("loyalty_y", "rn", "entity_row_id", "event_timestamp"):
        with pytest.raises(ValueError, match="rename it"):
            feast_views.check_column_names({lost: "Float64"})


def test_a_service_a_model_over_one_set_of_families(opened) -> None:
    families = [
        name for family in point_in_time.FAMILIES.values() for name in family.columns(ledger_lines.VISIBLE_DAYS)
    ]
    served = [*families, *engagement.column_names()]
    assert (
        opened.feature_names("churn_v1")
        == opened.feature_names("timing_v1")
        == opened.feature_names("value_v1")
        == served
    )
    assert opened.feature_names("offers_v1") == [*product_history.PRODUCT_LIST_TYPES, *engagement.column_names()]
    assert opened.feature_names("restock_v1")[: len(category_history.CATEGORY_LIST_TYPES)] == [
        *category_history.CATEGORY_LIST_TYPES
    ]
    assert opened.feature_names("recommender_v1")[0] == "product_keys"


def test_feasts_own_command_finds_the_same_objects(opened, monkeypatch) -> None:
    from feast.repo_operations import get_repo_files, parse_repo

    root = feature_store.SETTINGS_FILE.parent
    assert [path.name for path in get_repo_files(root)] == ["definitions.py"]
    monkeypatch.setenv("REGULARS_FEAST_HOME", str(opened.folder))
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))  # as Feast's command does
    found = parse_repo(root)
    views_found = sorted(view.name for view in found.feature_views)
    assert views_found == ["engagement", "needs", "rhythm", "shelf", "spend", "taste"]
    assert len(found.feature_services) == len(definitions.SERVICES)
    assert "customer" in [entity.name for entity in found.entities]


def test_a_snapshot_needs_no_feast() -> None:
    code = "import sys; from features.snapshots import snapshot; sys.exit('feast' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_online_store_is_named_by_its_address() -> None:
    for address, kind in (
        ("redis://:secret@cache:6380/2", "features.store.online_redis.SteadyRedisOnlineStore"),
        ("postgresql://shop:secret@base/online", "features.store.online_postgres.SteadyPostgresOnlineStore"),
    ):
        assert feature_store._online_config(Path("/home"), address) == {"type": kind, "url": address}
    with pytest.raises(ValueError, match="redis://") as refused:
        feature_store._online_config(Path("/home"), "mysql://:secret@cache")
    assert "secret" not in str(refused.value)
