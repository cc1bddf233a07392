"""Trained models are registered: each version with its run, its metrics and its bundle."""

import os
import shutil
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.recommender.popularity import Bestsellers, Popularity
from models.registry import bundle, mlflow_client, mlflow_registry

METRICS = {
    "2017-10-09": {"recall_at_10": 0.10, "popularity.recall_at_10": 0.04},
    "2017-11-06": {"recall_at_10": 0.11, "popularity.recall_at_10": 0.05},
    "seconds": 3.5,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("a home")


@pytest.fixture(scope="module")
def uri(home) -> str:
    return f"sqlite:///{home}/mlflow/mlflow.db"


@pytest.fixture(scope="module")
def folder(home) -> Path:
    model = Popularity(Bestsellers(np.array([3, 1, 2]), np.array([0.5, 0.2, 0.1])))
    bundle.write(model, home / "trained", facts={"as_of": "2017-12-04T05:00:00Z"})
    return home / "trained"


@pytest.fixture(scope="module")
def registered(uri, folder) -> tuple[str, str]:
    return mlflow_registry.register_version(
        uri,
        "recommender",
        folder,
        params={"half_life_days": 84, "seed": 0},
        metrics=METRICS,
        tags={"fingerprint": "abc", "feature_service": "recommender_v1"},
        artifacts={"columns.json": ["product_keys"], "why.txt": "better than popularity"},
    )


def test_a_registered_version_can_be_read_back(uri, registered):
    version, run_id = registered
    version_record = mlflow_registry.get_version(uri, "recommender", version)
    assert version_record.run_id == run_id
    assert version_record.params == {"half_life_days": "84", "seed": "0"}
    assert version_record.tags == {"fingerprint": "abc", "feature_service": "recommender_v1"}
    assert version_record.metrics == {cutoff: METRICS[cutoff] for cutoff in ("2017-10-09", "2017-11-06")} | {
        "": {"seconds": 3.5}
    }


def test_metrics_without_a_version_are_recorded_as_a_run_of_their_own(uri, tmp_path):
    (tmp_path / "table.csv").write_text("method\n")
    files = {"table.csv": tmp_path / "table.csv"}
    run_id = mlflow_registry.record_run(
        uri, "backtest", params={"cutoffs": 3}, metrics={"ours.recall_10": 0.5}, artifacts=files
    )
    run = mlflow_client.open_client(uri).get_run(run_id)
    assert (run.data.params, run.data.metrics) == ({"cutoffs": "3"}, {"ours.recall_10": 0.5})
    assert mlflow_registry.list_versions(uri, "backtest") == []


def test_everything_is_written_inside_the_home_folder(uri, home, registered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, run_id = mlflow_registry.register_version(
        uri, "churn", home / "trained", artifacts={"figures/notes.txt": home / "trained/manifest.json"}
    )
    assert (home / "mlflow" / "artifacts" / run_id / "artifacts" / "figures" / "notes.txt").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_version_can_be_downloaded_and_verified(uri, registered, folder, tmp_path):
    downloaded = mlflow_registry.download_bundle(uri, "recommender", registered[0], tmp_path / "downloaded")
    assert bundle.verify(downloaded) == bundle.verify(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["downloaded"]


def test_a_damaged_version_is_not_downloaded(uri, home, folder, tmp_path):
    version, run_id = mlflow_registry.register_version(uri, "damaged", folder)
    (stored,) = (home / "mlflow" / "artifacts" / run_id).rglob("arrays.npz")
    stored.write_bytes(stored.read_bytes()[:-1])
    with pytest.raises(bundle.InvalidBundle):
        mlflow_registry.download_bundle(uri, "damaged", version, tmp_path / "downloaded")
    assert list(tmp_path.iterdir()) == []


def test_an_alias_moves_and_can_be_removed(uri, folder):
    first, second = (mlflow_registry.register_version(uri, "timing", folder)[0] for _ in range(2))
    assert mlflow_registry.version_by_alias(uri, "timing", "champion") is None
    mlflow_registry.set_alias(uri, "timing", "champion", first)
    mlflow_registry.set_alias(uri, "timing", "challenger", second)
    assert mlflow_registry.version_by_alias(uri, "timing", "champion") == first
    mlflow_registry.set_alias(uri, "timing", "champion", second)
    assert mlflow_registry.version_by_alias(uri, "timing", "champion") == second
    mlflow_registry.set_alias(uri, "timing", "champion", None)
    mlflow_registry.set_alias(uri, "timing", "champion", None)
    assert mlflow_registry.version_by_alias(uri, "timing", "champion") is None
    assert mlflow_registry.list_versions(uri, "timing") == [first, second]


def test_a_model_trained_before_is_located_by_its_fingerprint(uri, folder):
    old, new = (
        mlflow_registry.register_version(uri, "value", folder, tags={"fingerprint": "same"})[0] for _ in range(2)
    )
    assert mlflow_registry.find_version(uri, "value", "same") == new != old
    assert mlflow_registry.find_version(uri, "value", "other") is None


def test_a_model_or_version_that_was_never_registered_is_reported_missing(uri, registered, tmp_path):
    assert mlflow_registry.version_by_alias(uri, "offers", "champion") is None
    assert mlflow_registry.list_versions(uri, "offers") == []
    assert mlflow_registry.find_version(uri, "offers", "abc") is None
    for call in (
        mlflow_registry.get_version,
        lambda *version_key: mlflow_registry.download_bundle(*version_key, tmp_path / "downloaded"),
    ):
        with pytest.raises(mlflow_registry.UnknownVersion, match="offers has no version 1"):
            call(uri, "offers", "1")
    with pytest.raises(mlflow_registry.UnknownVersion):
        mlflow_registry.set_alias(uri, "recommender", "champion", "77")


def test_a_bundle_that_does_not_verify_is_not_registered(uri, folder, tmp_path):
    with pytest.raises(bundle.InvalidBundle):
        mlflow_registry.register_version(uri, "nothing", tmp_path)
    assert mlflow_registry.list_versions(uri, "nothing") == []


def test_more_metrics_than_fit_in_one_batch_are_all_recorded(uri, folder):
    params = {f"setting_{position}": position for position in range(150)}
    metrics = {"2017-11-06": {f"metric_{position}": float(position) for position in range(1100)}}
    version, _ = mlflow_registry.register_version(uri, "restock", folder, params=params, metrics=metrics)
    version_record = mlflow_registry.get_version(uri, "restock", version)
    assert len(version_record.params) == 150
    assert version_record.metrics == metrics


def test_mlflows_own_loader_opens_a_version(uri, registered, monkeypatch):
    import mlflow

    mlflow_registry.set_alias(uri, "recommender", "champion", registered[0])
    # MLflow writes the address to these variables itself; monkeypatch restores them after the test.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    opened = mlflow.pyfunc.load_model("models:/recommender@champion")
    recommended = opened.predict(pd.DataFrame([{"customer_key": 1, "product_keys": None}]))
    assert recommended[recommended.list == "any"].product_key.tolist() == [3, 1, 2]


def test_two_homes_are_two_registries_and_a_new_one_is_created_without_output(uri, registered, folder, tmp_path, capfd):
    other = f"sqlite:///{tmp_path}/mlflow.db"
    assert mlflow_registry.list_versions(other, "recommender") == []
    assert mlflow_registry.register_version(other, "recommender", folder)[0] == "1"
    assert mlflow_registry.version_by_alias(other, "recommender", "champion") is None
    output = capfd.readouterr()
    assert output.out == ""
    assert "INFO" not in output.err


def tracking_uri(home: Path) -> str:
    return f"sqlite:///{home}/mlflow/mlflow.db"


def register_with_artifact(home: Path, folder: Path) -> str:
    artifacts = {"judged/manifest.json": folder / "manifest.json"}
    return mlflow_registry.register_version(tracking_uri(home), "recommender", folder, artifacts=artifacts)[0]


@pytest.mark.acceptance
def test_a_moved_home_uses_its_own_artifacts(folder, tmp_path):
    # A parent folder called artifacts must not be mistaken for the one beside the database.
    old, new = tmp_path / "artifacts" / "old shop", tmp_path / "new shop"
    first = register_with_artifact(old, folder)
    shutil.move(old, new)
    moved = tracking_uri(new)
    downloaded = mlflow_registry.download_bundle(moved, "recommender", first, tmp_path / "downloaded")
    assert bundle.verify(downloaded) == bundle.verify(folder)
    downloaded_artifact = mlflow_registry.download_artifact(moved, "recommender", first, "judged", tmp_path / "holdout")
    assert [file.name for file in downloaded_artifact.iterdir()] == ["manifest.json"]
    second = register_with_artifact(new, folder)
    third = register_with_artifact(new, folder)
    assert mlflow_registry.list_versions(moved, "recommender") == [first, second, third]
    for version in (second, third):
        run_folder = new / "mlflow" / "artifacts" / mlflow_registry.get_version(moved, "recommender", version).run_id
        assert (run_folder / "artifacts" / "judged" / "manifest.json").exists()
        assert mlflow_registry.download_bundle(moved, "recommender", version, tmp_path / version).exists()
    assert not old.exists()
    assert (
        len(mlflow_client.open_client(moved).search_experiments()) == 3
    )  # MLflow's own, that of the old path and that of the new one


@pytest.mark.acceptance
def test_a_copied_home_and_its_original_stay_separate(folder, tmp_path):
    original, copy = tmp_path / "shop", tmp_path / "copy"
    first = register_with_artifact(original, folder)
    shutil.copytree(original, copy)
    before = sorted(original.rglob("*"))
    second = register_with_artifact(copy, folder)
    assert sorted(original.rglob("*")) == before
    assert mlflow_registry.list_versions(tracking_uri(copy), "recommender") == [first, second]
    assert mlflow_registry.list_versions(tracking_uri(original), "recommender") == [first]
    shutil.rmtree(original / "mlflow" / "artifacts")
    assert mlflow_registry.download_bundle(tracking_uri(copy), "recommender", first, tmp_path / "downloaded").exists()
    assert (
        mlflow_registry.download_artifact(tracking_uri(original), "recommender", first, "judged", tmp_path / "holdout")
        is None
    )
    with pytest.raises(bundle.InvalidBundle, match=r"holds no bundle in .*shop/mlflow/artifacts"):
        mlflow_registry.download_bundle(tracking_uri(original), "recommender", first, tmp_path / "missing")


def registry_calls(uri: str, folder: Path, target: Path) -> list:
    return [
        lambda: mlflow_registry.register_version(uri, "recommender", folder),
        lambda: mlflow_registry.list_versions(uri, "recommender"),
        lambda: mlflow_registry.find_version(uri, "recommender", "abc"),
        lambda: mlflow_registry.version_by_alias(uri, "recommender", "champion"),
        lambda: mlflow_registry.set_alias(uri, "recommender", "champion", "1"),
        lambda: mlflow_registry.set_alias(uri, "recommender", "champion", None),
        lambda: mlflow_registry.get_version(uri, "recommender", "1"),
        lambda: mlflow_registry.download_bundle(uri, "recommender", "1", target / "downloaded"),
        lambda: mlflow_registry.download_artifact(uri, "recommender", "1", "judged", target),
    ]


def test_an_unreachable_server_is_reported_down_soon_and_without_its_password(folder, tmp_path, capfd):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound but not listening, so every connection is refused
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        pattern = f"http://{address} does not answer.*MLFLOW_TRACKING_URI"
        started = time.monotonic()
        for call in registry_calls(f"http://shop:pa55word@{address}/mlflow?token=pa55word", folder, tmp_path):
            with pytest.raises(mlflow_client.RegistryDown, match=pattern) as error:
                call()
            assert "pa55word" not in "".join(traceback.format_exception(error.value))
    assert time.monotonic() - started < 9 * 4
    assert "pa55word" not in "".join(capfd.readouterr())


def test_an_unreadable_database_is_reported_down_and_not_changed(folder, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"garbage" * 1000)
    started = time.monotonic()
    for call in registry_calls(f"sqlite:///{tmp_path}/mlflow.db", folder, tmp_path):
        with pytest.raises(mlflow_client.RegistryDown, match=r"mlflow\.db does not answer"):
            call()
    assert time.monotonic() - started < 9 * 2
    assert (tmp_path / "mlflow.db").read_bytes() == b"garbage" * 1000


def test_a_database_damaged_while_it_is_open_is_reported_down(folder, tmp_path):
    register_with_artifact(tmp_path, folder)
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(b"garbage" * 1000)
    for call in registry_calls(tracking_uri(tmp_path), folder, tmp_path):
        with pytest.raises(mlflow_client.RegistryDown):
            call()


@pytest.mark.parametrize("uri", ["http://[shop", "postgresql://shop:pa55word@127.0.0.1:1/x", "nowhere", "file:///tmp"])
def test_an_address_without_a_registry_is_reported_down(uri, folder, tmp_path, capfd):
    for call in registry_calls(uri, folder, tmp_path):
        with pytest.raises(mlflow_client.RegistryDown) as error:
            call()
        assert "pa55word" not in "".join(traceback.format_exception(error.value))
    assert "pa55word" not in "".join(capfd.readouterr())


@pytest.mark.acceptance
def test_no_registry_call_leaves_the_address_in_the_environment(tmp_path, folder):
    command = (
        "import os, sys; from pathlib import Path; from models.registry import mlflow_registry as r;"
        "uri, folder, to = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]);"
        "v = r.register_version(uri, 'churn', folder, artifacts={'why.txt': 'so'})[0];"
        "r.list_versions(uri, 'churn'); r.find_version(uri, 'churn', 'x'); r.set_alias(uri, 'churn', 'champion', v);"
        "r.version_by_alias(uri, 'churn', 'champion'); r.get_version(uri, 'churn', v);"
        "r.download_bundle(uri, 'churn', v, to / 'downloaded');"
        "r.download_artifact(uri, 'churn', v, 'why.txt', to); r.set_alias(uri, 'churn', 'champion', None);"
        "print([name for name, value in os.environ.items() if name.startswith('MLFLOW') and uri in value])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    result = subprocess.run(
        [sys.executable, "-c", command, tracking_uri(tmp_path), str(folder), str(tmp_path)],
        capture_output=True, text=True, check=True, env=environment, cwd=Path(mlflow_registry.__file__).parents[2],
    )  # fmt: skip
    assert result.stdout.strip() == "[]"


def test_importing_the_registry_does_not_import_mlflow():
    command = [
        sys.executable,
        "-c",
        "import sys; from models.registry import mlflow_registry; print('mlflow' in sys.modules)",
    ]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(mlflow_registry.__file__).parents[2]
    )
    assert result.stdout.strip() == "False"


def test_telemetry_is_off_before_mlflow_is_first_used(monkeypatch):
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "unset")
        monkeypatch.delenv(name)
    mlflow_client.open_client.cache_clear()
    assert mlflow_registry.list_versions("sqlite:///:memory:", "recommender") == []
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"
