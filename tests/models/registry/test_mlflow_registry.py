"""What was trained is on record: each version with its run, its figures and its bundle."""

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

FIGURES = {
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
def recorded(uri, folder) -> tuple[str, str]:
    return mlflow_registry.register_version(
        uri,
        "recommender",
        folder,
        params={"half_life_days": 84, "seed": 0},
        metrics=FIGURES,
        tags={"fingerprint": "abc", "feature_service": "recommender_v1"},
        artifacts={"columns.json": ["product_keys"], "why.txt": "better than popularity"},
    )


def test_what_was_recorded_can_be_read_back(uri, recorded):
    version, run_id = recorded
    found = mlflow_registry.get_version(uri, "recommender", version)
    assert found.run_id == run_id
    assert found.params == {"half_life_days": "84", "seed": "0"}
    assert found.tags == {"fingerprint": "abc", "feature_service": "recommender_v1"}
    assert found.metrics == {moment: FIGURES[moment] for moment in ("2017-10-09", "2017-11-06")} | {
        "": {"seconds": 3.5}
    }


def test_figures_of_no_version_are_kept_as_a_run_of_their_own(uri, tmp_path):
    (tmp_path / "table.csv").write_text("method\n")
    files = {"table.csv": tmp_path / "table.csv"}
    run_id = mlflow_registry.record_run(
        uri, "backtest", params={"cutoffs": 3}, metrics={"ours.recall_10": 0.5}, artifacts=files
    )
    run = mlflow_client.open_client(uri).get_run(run_id)
    assert (run.data.params, run.data.metrics) == ({"cutoffs": "3"}, {"ours.recall_10": 0.5})
    assert mlflow_registry.list_versions(uri, "backtest") == []


def test_everything_lies_inside_the_home_and_nothing_beside_it(uri, home, recorded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, run_id = mlflow_registry.register_version(
        uri, "churn", home / "trained", artifacts={"figures/notes.txt": home / "trained/manifest.json"}
    )
    assert (home / "mlflow" / "artifacts" / run_id / "artifacts" / "figures" / "notes.txt").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_version_can_be_brought_back_verified(uri, recorded, folder, tmp_path):
    brought = mlflow_registry.download_bundle(uri, "recommender", recorded[0], tmp_path / "brought")
    assert bundle.verify(brought) == bundle.verify(folder)
    assert [entry.name for entry in tmp_path.iterdir()] == ["brought"]


def test_a_damaged_version_is_not_brought_back(uri, home, folder, tmp_path):
    version, run_id = mlflow_registry.register_version(uri, "damaged", folder)
    (stored,) = (home / "mlflow" / "artifacts" / run_id).rglob("arrays.npz")
    stored.write_bytes(stored.read_bytes()[:-1])
    with pytest.raises(bundle.InvalidBundle):
        mlflow_registry.download_bundle(uri, "damaged", version, tmp_path / "brought")
    assert list(tmp_path.iterdir()) == []


def test_an_alias_moves_and_can_be_taken_away(uri, folder):
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


def test_what_was_trained_before_is_found_by_its_fingerprint(uri, folder):
    old, new = (
        mlflow_registry.register_version(uri, "value", folder, tags={"fingerprint": "same"})[0] for _ in range(2)
    )
    assert mlflow_registry.find_version(uri, "value", "same") == new != old
    assert mlflow_registry.find_version(uri, "value", "other") is None


def test_a_model_or_version_nobody_recorded_is_said_to_be_missing(uri, recorded, tmp_path):
    assert mlflow_registry.version_by_alias(uri, "offers", "champion") is None
    assert mlflow_registry.list_versions(uri, "offers") == []
    assert mlflow_registry.find_version(uri, "offers", "abc") is None
    for call in (
        mlflow_registry.get_version,
        lambda *which: mlflow_registry.download_bundle(*which, tmp_path / "brought"),
    ):
        with pytest.raises(mlflow_registry.UnknownVersion, match="offers has no version 1"):
            call(uri, "offers", "1")
    with pytest.raises(mlflow_registry.UnknownVersion):
        mlflow_registry.set_alias(uri, "recommender", "champion", "77")


def test_a_bundle_that_does_not_verify_is_not_recorded(uri, folder, tmp_path):
    with pytest.raises(bundle.InvalidBundle):
        mlflow_registry.register_version(uri, "nothing", tmp_path)
    assert mlflow_registry.list_versions(uri, "nothing") == []


def test_more_figures_than_one_batch_takes_are_all_kept(uri, folder):
    params = {f"setting_{place}": place for place in range(150)}
    metrics = {"2017-11-06": {f"figure_{place}": float(place) for place in range(1100)}}
    version, _ = mlflow_registry.register_version(uri, "restock", folder, params=params, metrics=metrics)
    found = mlflow_registry.get_version(uri, "restock", version)
    assert len(found.params) == 150
    assert found.metrics == metrics


def test_mlflows_own_loader_opens_a_version(uri, recorded, monkeypatch):
    import mlflow

    mlflow_registry.set_alias(uri, "recommender", "champion", recorded[0])
    # MLflow keeps the address in these variables itself; they go back to what they were with the test.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    opened = mlflow.pyfunc.load_model("models:/recommender@champion")
    answer = opened.predict(pd.DataFrame([{"customer_key": 1, "product_keys": None}]))
    assert answer[answer.list == "any"].product_key.tolist() == [3, 1, 2]


def test_two_homes_are_two_registries_and_a_new_one_is_made_quietly(uri, recorded, folder, tmp_path, capfd):
    other = f"sqlite:///{tmp_path}/mlflow.db"
    assert mlflow_registry.list_versions(other, "recommender") == []
    assert mlflow_registry.register_version(other, "recommender", folder)[0] == "1"
    assert mlflow_registry.version_by_alias(other, "recommender", "champion") is None
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "INFO" not in printed.err


def address(home: Path) -> str:
    return f"sqlite:///{home}/mlflow/mlflow.db"


def one_version(home: Path, folder: Path) -> str:
    judged = {"judged/manifest.json": folder / "manifest.json"}
    return mlflow_registry.register_version(address(home), "recommender", folder, artifacts=judged)[0]


def test_a_moved_home_is_its_own(folder, tmp_path):
    # A folder called artifacts further up must not be taken for the one beside the database.
    old, new = tmp_path / "artifacts" / "old shop", tmp_path / "new shop"
    first = one_version(old, folder)
    shutil.move(old, new)
    moved = address(new)
    brought = mlflow_registry.download_bundle(moved, "recommender", first, tmp_path / "brought")
    assert bundle.verify(brought) == bundle.verify(folder)
    judged = mlflow_registry.download_artifact(moved, "recommender", first, "judged", tmp_path / "twin")
    assert [file.name for file in judged.iterdir()] == ["manifest.json"]
    second = one_version(new, folder)
    third = one_version(new, folder)
    assert mlflow_registry.list_versions(moved, "recommender") == [first, second, third]
    for version in (second, third):
        lying = new / "mlflow" / "artifacts" / mlflow_registry.get_version(moved, "recommender", version).run_id
        assert (lying / "artifacts" / "judged" / "manifest.json").exists()
        assert mlflow_registry.download_bundle(moved, "recommender", version, tmp_path / version).exists()
    assert not old.exists()
    assert (
        len(mlflow_client.open_client(moved).search_experiments()) == 3
    )  # MLflow's own, the old place's and the new one's


def test_a_copied_home_and_its_original_stay_apart(folder, tmp_path):
    original, copy = tmp_path / "shop", tmp_path / "copy"
    first = one_version(original, folder)
    shutil.copytree(original, copy)
    before = sorted(original.rglob("*"))
    second = one_version(copy, folder)
    assert sorted(original.rglob("*")) == before
    assert mlflow_registry.list_versions(address(copy), "recommender") == [first, second]
    assert mlflow_registry.list_versions(address(original), "recommender") == [first]
    shutil.rmtree(original / "mlflow" / "artifacts")
    assert mlflow_registry.download_bundle(address(copy), "recommender", first, tmp_path / "brought").exists()
    assert (
        mlflow_registry.download_artifact(address(original), "recommender", first, "judged", tmp_path / "twin") is None
    )
    with pytest.raises(bundle.InvalidBundle, match=r"holds no bundle in .*shop/mlflow/artifacts"):
        mlflow_registry.download_bundle(address(original), "recommender", first, tmp_path / "gone")


def every_question(uri: str, folder: Path, to: Path) -> list:
    return [
        lambda: mlflow_registry.register_version(uri, "recommender", folder),
        lambda: mlflow_registry.list_versions(uri, "recommender"),
        lambda: mlflow_registry.find_version(uri, "recommender", "abc"),
        lambda: mlflow_registry.version_by_alias(uri, "recommender", "champion"),
        lambda: mlflow_registry.set_alias(uri, "recommender", "champion", "1"),
        lambda: mlflow_registry.set_alias(uri, "recommender", "champion", None),
        lambda: mlflow_registry.get_version(uri, "recommender", "1"),
        lambda: mlflow_registry.download_bundle(uri, "recommender", "1", to / "brought"),
        lambda: mlflow_registry.download_artifact(uri, "recommender", "1", "judged", to),
    ]


def test_a_server_that_is_away_is_said_to_be_down_soon_and_without_its_password(folder, tmp_path, capfd):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and never listening: every connection is refused
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        said = f"http://{place} does not answer.*MLFLOW_TRACKING_URI"
        started = time.monotonic()
        for ask in every_question(f"http://shop:pa55word@{place}/mlflow?token=pa55word", folder, tmp_path):
            with pytest.raises(mlflow_client.RegistryDown, match=said) as told:
                ask()
            assert "pa55word" not in "".join(traceback.format_exception(told.value))
    assert time.monotonic() - started < 9 * 4
    assert "pa55word" not in "".join(capfd.readouterr())


def test_a_database_that_cannot_be_read_is_said_to_be_down_and_left_alone(folder, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"garbage" * 1000)
    started = time.monotonic()
    for ask in every_question(f"sqlite:///{tmp_path}/mlflow.db", folder, tmp_path):
        with pytest.raises(mlflow_client.RegistryDown, match=r"mlflow\.db does not answer"):
            ask()
    assert time.monotonic() - started < 9 * 2
    assert (tmp_path / "mlflow.db").read_bytes() == b"garbage" * 1000


def test_a_database_that_is_damaged_while_it_is_open_is_said_to_be_down(folder, tmp_path):
    one_version(tmp_path, folder)
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(b"garbage" * 1000)
    for ask in every_question(address(tmp_path), folder, tmp_path):
        with pytest.raises(mlflow_client.RegistryDown):
            ask()


@pytest.mark.parametrize("uri", ["http://[shop", "postgresql://shop:pa55word@127.0.0.1:1/x", "nowhere", "file:///tmp"])
def test_an_address_that_leads_to_no_registry_is_said_to_be_down(uri, folder, tmp_path, capfd):
    for ask in every_question(uri, folder, tmp_path):
        with pytest.raises(mlflow_client.RegistryDown) as told:
            ask()
        assert "pa55word" not in "".join(traceback.format_exception(told.value))
    assert "pa55word" not in "".join(capfd.readouterr())


def test_no_question_leaves_the_address_in_the_environment(tmp_path, folder):
    command = (
        "import os, sys; from pathlib import Path; from models.registry import mlflow_registry as r;"
        "uri, folder, to = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]);"
        "v = r.register_version(uri, 'churn', folder, artifacts={'why.txt': 'so'})[0];"
        "r.list_versions(uri, 'churn'); r.find_version(uri, 'churn', 'x'); r.set_alias(uri, 'churn', 'champion', v);"
        "r.version_by_alias(uri, 'churn', 'champion'); r.get_version(uri, 'churn', v); r.download_bundle(uri, 'churn', v, to / 'brought');"
        "r.download_artifact(uri, 'churn', v, 'why.txt', to); r.set_alias(uri, 'churn', 'champion', None);"
        "print([name for name, value in os.environ.items() if name.startswith('MLFLOW') and uri in value])"
    )
    bare = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    asked = subprocess.run(
        [sys.executable, "-c", command, address(tmp_path), str(folder), str(tmp_path)],
        capture_output=True, text=True, check=True, env=bare, cwd=Path(mlflow_registry.__file__).parents[2],
    )  # fmt: skip
    assert asked.stdout.strip() == "[]"


def test_importing_the_registry_does_not_import_mlflow():
    command = [
        sys.executable,
        "-c",
        "import sys; from models.registry import mlflow_registry; print('mlflow' in sys.modules)",
    ]
    asked = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(mlflow_registry.__file__).parents[2]
    )
    assert asked.stdout.strip() == "False"


def test_telemetry_is_off_before_mlflow_is_first_used(monkeypatch):
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "unset")
        monkeypatch.delenv(name)
    mlflow_client.open_client.cache_clear()
    assert mlflow_registry.list_versions("sqlite:///:memory:", "recommender") == []
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"
