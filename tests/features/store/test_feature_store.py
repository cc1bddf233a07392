"""The feature store: offline and online features are equal, and Feast's defaults do not affect the shop."""

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
from features.store import feast_store, feature_store, snapshot_reader

CHURN_SERVICE = "churn_v1"


def filled_store(folder, ledger, as_of, *cutoffs, timezone="UTC") -> feature_store.FeatureStore:
    """A store over a snapshot of a ledger, materialised as of its run."""
    snapshot.write_snapshot(ledger, folder, as_of=as_of, cutoffs=[as_of, *cutoffs], timezone=timezone)
    store = feature_store.open_store(folder)
    store.apply()
    store.materialise(as_of)
    return store


@pytest.fixture(scope="module")
def snapshots(ledger_kit, tmp_path_factory):
    """Two customers at two cutoffs, written once; every test has its own copy."""
    folder = tmp_path_factory.mktemp("written")
    lines = [
        ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"), 10.0),
        ledger_kit.line(2, ledger_kit.at("2026-05-20 10:00"), 7.0),
    ]
    as_of, early = ledger_kit.at("2026-06-01 00:00"), ledger_kit.at("2026-05-10 00:00")
    ledger = ledger_kit.write_ledger(folder / "ledger", lines)
    snapshot.write_snapshot(ledger, folder / "features", as_of=as_of, cutoffs=[as_of, early], timezone="UTC")
    return folder / "features"


@pytest.fixture
def store(snapshots, ledger_kit, tmp_path) -> feature_store.FeatureStore:
    store = feature_store.open_store(Path(shutil.copytree(snapshots, tmp_path / "features")))
    store.apply()
    store.materialise(ledger_kit.at("2026-06-01 00:00"))
    return store


def push_recency(store: feature_store.FeatureStore, ledger_kit, pushed_at: str, recency: float) -> None:
    """Push the rhythm view of customer 1 with another recency, as of pushed_at."""
    rows = pd.read_parquet(store.folder / "rhythm" / "part.parquet").query("customer_key == 1").tail(1)
    store.push("rhythm", rows.assign(recency_days=recency, event_timestamp=ledger_kit.at(pushed_at)))


def recency(store: feature_store.FeatureStore) -> float:
    return float(store.online_features(CHURN_SERVICE, [1]).recency_days.item())


def test_online_features_equal_offline_ones_for_every_real_customer(real_snapshot, ledger_kit) -> None:
    store = feature_store.open_store(real_snapshot)
    store.apply()
    store.materialise(ledger_kit.now)
    rows = pd.read_parquet(real_snapshot / "rhythm" / "part.parquet", columns=["customer_key", "event_timestamp"])
    entities = rows[rows.event_timestamp == ledger_kit.now].reset_index(drop=True)
    assert len(entities) >= 500
    offline, online = (
        store.historical_features(CHURN_SERVICE, entities),
        store.online_features(CHURN_SERVICE, entities.customer_key.tolist()),
    )
    assert (online.event_timestamp == ledger_kit.now).all()
    columns = store.feature_names(CHURN_SERVICE)
    pd.testing.assert_frame_equal(offline[columns], online[columns], check_exact=True)
    assert store.feature_names("timing_v1") == columns
    offline_lists, online_lists = (
        store.historical_features("recommender_v1", entities),
        store.online_features("recommender_v1", entities.customer_key.tolist()),
    )
    for name in store.feature_names("recommender_v1"):
        assert all(map(np.array_equal, offline_lists[name], online_lists[name]))
        assert offline_lists[name][0].dtype == online_lists[name][0].dtype


def test_historical_features_have_the_order_and_rows_of_the_entities(store, ledger_kit) -> None:
    early, late = ledger_kit.at("2026-05-10 00:00"), ledger_kit.at("2026-06-01 00:00")
    entities = pd.DataFrame(
        {"customer_key": [2, 1, 777, 1, 2, 2], "event_timestamp": [late, early, late, late, early, late]},
        index=list("fedcba"),
    )
    features = store.historical_features(CHURN_SERVICE, entities)
    assert list(features.index) == list("fedcba")
    assert features.customer_key.tolist() == [2, 1, 777, 1, 2, 2]
    np.testing.assert_array_equal(features.recency_days, [12, 9, np.nan, 31, np.nan, 12])
    assert set(features.drop(columns=["customer_key", "event_timestamp"]).dtypes.astype(str)) == {"float64"}


@pytest.mark.parametrize("service", [CHURN_SERVICE, "recommender_v1", "offers_v1", "restock_v1"])
def test_features_at_a_snapshot_are_those_that_feast_joins(store, ledger_kit, service: str) -> None:
    late = ledger_kit.at("2026-06-01 00:00")
    keys = [2, 777, 1, 2]
    read = store.snapshot_features(service, keys, late)
    joined = store.historical_features(service, pd.DataFrame({"customer_key": keys, "event_timestamp": late}))
    pd.testing.assert_frame_equal(read, joined)
    pd.testing.assert_frame_equal(store.snapshot_features(service, [], late), joined.head(0), check_index_type=False)


def test_a_frame_in_nanoseconds_matches_files_in_microseconds(store, ledger_kit) -> None:
    entities = pd.DataFrame({"customer_key": [1], "event_timestamp": pd.to_datetime(["2026-06-01"], utc=True)})
    assert entities.event_timestamp.dt.unit == "ns"
    for unit in ("ns", "us", "s"):
        features = store.historical_features(
            CHURN_SERVICE, entities.assign(event_timestamp=entities.event_timestamp.dt.as_unit(unit))
        )
        assert features.recency_days.item() == 31


def test_historical_features_before_the_first_snapshot_are_null(store, ledger_kit) -> None:
    entities = pd.DataFrame({"customer_key": [1, 2], "event_timestamp": [ledger_kit.at("2026-01-01 00:00")] * 2})
    assert store.historical_features(CHURN_SERVICE, entities)[store.feature_names(CHURN_SERVICE)].isna().all().all()
    offline_lists = store.historical_features("recommender_v1", entities)
    assert offline_lists.product_keys.tolist() == [None, None]
    assert store.historical_features(CHURN_SERVICE, entities.head(0)).empty


def test_a_changed_snapshot_changes_the_training_frame(store, ledger_kit) -> None:
    entities = pd.DataFrame({"customer_key": [1], "event_timestamp": [ledger_kit.at("2026-06-01 00:00")]})
    before = store.historical_features(CHURN_SERVICE, entities)
    path = store.folder / "spend" / "part.parquet"
    pd.read_parquet(path).assign(spend_total=123.0).to_parquet(path)
    after = store.historical_features(CHURN_SERVICE, entities)
    assert (before.spend_total.item(), after.spend_total.item()) == (10, 123)
    assert before.drop(columns="spend_total").equals(after.drop(columns="spend_total"))


def test_online_features_have_the_order_of_the_keys(store, ledger_kit) -> None:
    features = store.online_features(CHURN_SERVICE, [2, 777, 1, 2])
    np.testing.assert_array_equal(features.recency_days, [12, np.nan, 31, 12])
    assert features.event_timestamp.isna().tolist() == [False, True, False, False]
    assert features.event_timestamp[0] == ledger_kit.at("2026-06-01 00:00")
    assert list(features.columns) == ["customer_key", "event_timestamp", *store.feature_names(CHURN_SERVICE)]
    assert store.online_features("recommender_v1", [1, 777]).product_keys.map(lambda keys: keys is None).tolist() == [
        False,
        True,
    ]
    assert store.online_features(CHURN_SERVICE, []).empty


def test_before_materialisation_no_customer_has_features(tmp_path) -> None:
    store = feature_store.open_store(tmp_path)
    store.apply()
    assert store.online_features(CHURN_SERVICE, [1]).event_timestamp.isna().all()


def test_a_push_is_served_at_once(store, ledger_kit) -> None:
    push_recency(store, ledger_kit, "2026-06-02 00:00", 99.0)
    row = store.online_features(CHURN_SERVICE, [1]).iloc[0]
    assert (row.recency_days, row.spend_total) == (99, 10)
    assert row.event_timestamp == ledger_kit.at("2026-06-02 00:00")


def test_an_older_push_never_overwrites(store, ledger_kit) -> None:
    push_recency(store, ledger_kit, "2026-06-02 00:00", 99.0)
    push_recency(store, ledger_kit, "2026-06-01 23:59:59.999999", 55.0)
    assert recency(store) == 99
    push_recency(store, ledger_kit, "2026-06-02 00:00", 66.0)
    assert recency(store) == 66


def test_an_older_run_never_overwrites_a_push_or_a_later_run(store, ledger_kit) -> None:
    push_recency(store, ledger_kit, "2026-06-02 00:00", 99.0)
    store.materialise(ledger_kit.at("2026-06-01 00:00"))
    store.materialise(ledger_kit.at("2026-05-10 00:00"))
    assert recency(store) == 99
    assert store.online_features(CHURN_SERVICE, [2]).recency_days.item() == 12


def test_materialising_takes_exactly_the_rows_of_the_latest_cutoff(store, ledger_kit) -> None:
    views = ("needs", "rhythm", "shelf", "spend", "taste")
    no_rows = {"engagement": 0}
    assert store.materialise(ledger_kit.at("2026-05-15 00:00")) == no_rows | dict.fromkeys(views, 1)
    assert store.materialise(ledger_kit.at("2026-06-07 00:00")) == no_rows | dict.fromkeys(views, 2)
    with pytest.raises(snapshot_reader.NoSnapshot):
        store.materialise(ledger_kit.at("2026-01-01 00:00"))


def test_materialising_again_changes_nothing(store, ledger_kit) -> None:
    def rows() -> list[tuple]:
        with sqlite3.connect(store.folder / "feast" / "online.db") as con:
            return con.execute('select * from "regulars_rhythm" order by entity_key, feature_name').fetchall()

    before = rows()
    store.materialise(ledger_kit.at("2026-06-01 00:00"))
    assert before == rows()
    assert len(before) == 2 * len(recency_frequency.columns(ledger_lines.VISIBLE_DAYS))


def test_serving_goes_on_while_a_run_materialises_or_after_it_was_killed(store) -> None:
    from feast.feature_view import FeatureViewState

    view = store.feast.get_feature_view("rhythm")
    view.state = FeatureViewState.MATERIALIZING
    store.feast.registry.apply_feature_view(view, store.feast.project, commit=True)
    assert recency(feature_store.open_store(store.folder)) == 31


def test_applying_again_leaves_the_online_features(store) -> None:
    store.apply()
    assert recency(store) == 31


def test_the_online_file_can_be_read_during_a_write(store) -> None:
    path = store.folder / "feast" / "online.db"
    with sqlite3.connect(path) as con:
        assert con.execute("pragma journal_mode").fetchone() == ("wal",)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("begin immediate")
    assert recency(feature_store.open_store(store.folder)) == 31
    writer.execute("rollback")
    writer.close()


def test_times_survive_to_the_microsecond_in_any_zone_of_the_machine(ledger_kit, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        as_of = ledger_kit.at("2026-03-08 02:30:00.123456")  # an hour that New York's clocks skip
        store = filled_store(
            tmp_path, ledger_kit.write_ledger(tmp_path / "l", [ledger_kit.line(1, as_of - timedelta(days=3))]), as_of
        )
        row = store.online_features(CHURN_SERVICE, [1]).iloc[0]
        assert (row.recency_days, row.event_timestamp) == (3, as_of)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_two_homes_in_one_process_have_their_own_features(make_ledger, ledger_kit, tmp_path) -> None:
    as_of = ledger_kit.at("2026-06-01 00:00")
    near = filled_store(
        tmp_path / "a", make_ledger([ledger_kit.line(1, ledger_kit.at("2026-05-31 10:00"))], name="near"), as_of
    )
    far = filled_store(
        tmp_path / "b", make_ledger([ledger_kit.line(1, ledger_kit.at("2026-05-01 10:00"))], name="far"), as_of
    )
    entities = pd.DataFrame({"customer_key": [1], "event_timestamp": [as_of]})
    for store, days in ((near, 1), (far, 31), (near, 1)):
        assert recency(store) == days
        assert store.historical_features(CHURN_SERVICE, entities).recency_days.item() == days


def test_no_feature_has_a_name_that_feast_reserves(store) -> None:
    for service in definitions.SERVICES:
        feast_views.check_column_names(dict.fromkeys(store.feature_names(service), "Float64"))
    for reserved in ("loyalty_y", "rn", "entity_row_id", "event_timestamp"):
        with pytest.raises(ValueError, match="rename it"):
            feast_views.check_column_names({reserved: "Float64"})


def test_there_is_a_service_per_model_over_one_set_of_families(store) -> None:
    families = [
        name for family in point_in_time.FAMILIES.values() for name in family.columns(ledger_lines.VISIBLE_DAYS)
    ]
    expected = [*families, *engagement.column_names()]
    assert (
        store.feature_names("churn_v1")
        == store.feature_names("timing_v1")
        == store.feature_names("value_v1")
        == expected
    )
    assert store.feature_names("offers_v1") == [*product_history.PRODUCT_LIST_TYPES, *engagement.column_names()]
    assert store.feature_names("restock_v1")[: len(category_history.CATEGORY_LIST_TYPES)] == [
        *category_history.CATEGORY_LIST_TYPES
    ]
    assert store.feature_names("recommender_v1")[0] == "product_keys"


def test_feasts_own_command_finds_the_same_objects(store, monkeypatch) -> None:
    from feast.repo_operations import get_repo_files, parse_repo

    root = feast_store.SETTINGS_FILE.parent
    assert [path.name for path in get_repo_files(root)] == ["definitions.py"]
    monkeypatch.setenv("REGULARS_FEAST_HOME", str(store.folder))
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))  # as Feast's own command does
    repo = parse_repo(root)
    views_found = sorted(view.name for view in repo.feature_views)
    assert views_found == ["engagement", "needs", "rhythm", "shelf", "spend", "taste"]
    assert len(repo.feature_services) == len(definitions.SERVICES)
    assert "customer" in [entity.name for entity in repo.entities]


def test_a_snapshot_needs_no_feast() -> None:
    heavy = "'feast' in sys.modules or 'torch' in sys.modules"
    code = f"import sys; from features.snapshots import snapshot; sys.exit({heavy})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_address_gives_the_type_of_the_online_store() -> None:
    for address, store_type in (
        ("redis://:secret@cache:6380/2", "features.store.online_redis.SteadyRedisOnlineStore"),
        ("postgresql://shop:secret@base/online", "features.store.online_postgres.SteadyPostgresOnlineStore"),
    ):
        assert feast_store.online_config(Path("/home"), address) == {"type": store_type, "url": address}
    with pytest.raises(ValueError, match="redis://") as refused:
        feast_store.online_config(Path("/home"), "mysql://:secret@cache")
    assert "secret" not in str(refused.value)


def test_a_server_reads_and_pushes_without_feast(store) -> None:
    code = (
        "import sys; from pathlib import Path; from features.store import feature_store\n"
        f"store = feature_store.open_store(Path({str(store.folder)!r}))\n"
        "frame = store.online_features('churn_v1', [1, 2])\n"
        "assert frame.recency_days.tolist() == [31, 12], frame\n"
        "store.delete_customers([2])\n"
        "assert store.customer_features(1)['recency_days'] == 31\n"
        "sys.exit('feast' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_home_of_an_earlier_version_has_no_file_of_services(store) -> None:
    (store.folder / "feast" / "services.json").unlink()
    reopened = feature_store.open_store(store.folder)
    assert recency(reopened) == 31
    assert (store.folder / "feast" / "services.json").exists()


def test_feast_reads_the_same_values(store, ledger_kit) -> None:
    """What is pushed without Feast is read by Feast, and the other way round."""
    push_recency(store, ledger_kit, "2026-06-02 00:00", 99.0)
    response = store.feast.get_online_features(
        store.feast.get_feature_service(CHURN_SERVICE), [{"customer_key": 1}, {"customer_key": 2}]
    ).to_dict()
    ours = store.online_features(CHURN_SERVICE, [1, 2])
    for name in store.feature_names(CHURN_SERVICE):
        np.testing.assert_array_equal(np.array(response[name], float), ours[name])


@pytest.mark.parametrize("service", ["churn_v1", "recommender_v1", "restock_v1"])
def test_rows_written_just_now_are_as_the_store_returns_them(store, ledger_kit, service: str) -> None:
    frames = {
        view: pd.read_parquet(store.folder / view / "part.parquet").query("customer_key == 1").tail(1)
        for view in ("rhythm", "spend", "taste", "engagement", "shelf", "needs")
    }
    at = ledger_kit.at("2026-06-03 09:00")
    written = store.push_views({view: rows.assign(event_timestamp=at) for view, rows in frames.items()})
    read, handed_over = store.online_features(service, [1, 2]), store.online_features(service, [1, 2], written)
    assert read.event_timestamp[0] == at > read.event_timestamp[1]
    pd.testing.assert_frame_equal(handed_over, read, check_exact=True)


def test_the_latest_time_is_that_of_the_newest_view(store, ledger_kit) -> None:
    assert store.latest_event_at("offers_v1", [1, 2]) == ledger_kit.at("2026-06-01 00:00")
    rows = pd.read_parquet(store.folder / "shelf" / "part.parquet").query("customer_key == 1").tail(1)
    store.push("shelf", rows.assign(event_timestamp=ledger_kit.at("2026-06-02 00:00")))
    assert store.latest_event_at("offers_v1", [1, 2]) == ledger_kit.at("2026-06-02 00:00")
    assert store.latest_event_at("offers_v1", [99]) is None


def test_the_registry_is_a_file_or_at_an_address(monkeypatch) -> None:
    assert feast_store.registry_config(Path("/home"))["path"] == "/home/feast/registry.db"
    monkeypatch.setenv("REGULARS_FEAST_REGISTRY", "postgresql://shop:secret@base/feast")
    config = feast_store.registry_config(Path("/home"))
    assert (config["registry_type"], config["path"]) == ("sql", "postgresql+psycopg://shop:secret@base/feast")
    monkeypatch.setenv("REGULARS_FEAST_REGISTRY", "mysql://:secret@base/feast")
    with pytest.raises(ValueError, match="postgresql://USER") as refused:
        feast_store.registry_config(Path("/home"))
    assert "secret" not in str(refused.value)
