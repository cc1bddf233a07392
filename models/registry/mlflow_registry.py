"""The registry: which models were trained, on what, how well they did, and which one is champion.

The door to MLflow, with `tracking` and `runs` behind it, and the only one. What is registered is a bundle
(`models.bundle`), never a pickle. MLflow's own loader can open it for somebody who explores; serving opens the
published copy instead.

A registry in a SQLite file is its folder: artifacts are found beside the database wherever it lies now, though
MLflow remembers where it lay once. So a home can be moved, and a copy never touches the original.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from models import bundle, runs, tracking
from models.runs import Metrics

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

_EXPERIMENT = "regulars"


class NoVersion(Exception):
    """The registry has no such version; the message says which."""


@dataclass(frozen=True)
class Recorded:
    """What the registry knows of one version. `metrics` holds values by moment ("" for none) and name."""

    name: str
    version: str
    run_id: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, dict[str, float]]


@tracking.door
def record(
    uri: str,
    name: str,
    folder: Path,
    *,
    params: Mapping[str, Any] | None = None,
    metrics: Metrics | None = None,
    tags: Mapping[str, Any] | None = None,
    artifacts: Mapping[str, Any] | None = None,
) -> tuple[str, str]:
    """Register a bundle as a new version of a model, with the run that made it; returns (version, run id).

    `tags` stand on the version and on the run. `artifacts` maps file names to a path, a text, or something
    that JSON can hold. A recording that fails half-way leaves a run without a version, which nobody sees.
    """
    bundle.verify(folder)
    client = tracking.client(uri)
    words = {key: str(value) for key, value in (tags or {}).items()}
    run = client.create_run(_experiment(uri), run_name=name)
    with runs.ended(client, run.info.run_id):
        runs.log(client, run.info.run_id, params or {}, metrics or {}, words)
        for file, content in (artifacts or {}).items():
            runs.log_artifact(client, run.info.run_id, file, content)
        source = _log_bundle(client, run.info.run_id, folder)
        _ensure_model(client, name)
        made = client.create_model_version(name, source, run_id=run.info.run_id, tags=words)
    return str(made.version), run.info.run_id


@tracking.door
def note(
    uri: str,
    name: str,
    *,
    params: Mapping[str, Any] | None = None,
    metrics: Metrics | None = None,
    artifacts: Mapping[str, Any] | None = None,
) -> str:
    """Keep figures that belong to no version, such as those of a backtest, as a run of their own; its id."""
    client = tracking.client(uri)
    run = client.create_run(_experiment(uri), run_name=name)
    with runs.ended(client, run.info.run_id):
        runs.log(client, run.info.run_id, params or {}, metrics or {}, {})
        for file, content in (artifacts or {}).items():
            runs.log_artifact(client, run.info.run_id, file, content)
    return str(run.info.run_id)


@tracking.door
def versions(uri: str, name: str) -> list[str]:
    """All versions of a model, oldest first."""
    return sorted((str(found.version) for found in _all(uri, name)), key=int)


@tracking.door
def find(uri: str, name: str, fingerprint: str) -> str | None:
    """The newest version with this `fingerprint` among its tags, so that nothing need be trained twice."""
    same = [str(found.version) for found in _all(uri, name) if found.tags.get("fingerprint") == fingerprint]
    return max(same, key=int, default=None)


@tracking.door
def alias(uri: str, name: str, which: str) -> str | None:
    """The version that is called `champion` or `challenger`; None where none is."""
    from mlflow.exceptions import MlflowException

    try:
        return str(tracking.client(uri).get_model_version_by_alias(name, which).version)
    except MlflowException as error:
        if error.error_code in tracking.ABSENT:
            return None
        raise


@tracking.door
def set_alias(uri: str, name: str, which: str, version: str | None) -> None:
    """Call this version `champion` or `challenger`; None takes the name away from whoever has it."""
    if version is None:
        if alias(uri, name, which) is not None:
            tracking.client(uri).delete_registered_model_alias(name, which)
        return
    _version(uri, name, version)
    tracking.client(uri).set_registered_model_alias(name, which, version)


@tracking.door
def facts(uri: str, name: str, version: str) -> Recorded:
    """What was recorded with one version."""
    found = _version(uri, name, version)
    run = tracking.client(uri).get_run(found.run_id)
    return Recorded(
        name,
        str(found.version),
        found.run_id,
        dict(found.tags),
        dict(run.data.params),
        runs.metrics_of(tracking.client(uri), run),
    )


@tracking.door
def download(uri: str, name: str, version: str, to: Path) -> Path:
    """Copy a version's bundle into the new folder `to`, verified; returns `to`."""
    found = _version(uri, name, version)
    from mlflow.artifacts import download_artifacts

    here = _here(uri, found.run_id, found.source)
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download.", dir=to.parent) as beside:
        lying = here or Path(download_artifacts(artifact_uri=found.source, dst_path=beside, tracking_uri=uri))
        bundles = list(lying.glob(f"data/*/{bundle.MANIFEST}"))
        if len(bundles) != 1:
            where = f" in {here}; bring that folder back from a backup" if here else ""
            raise bundle.BadBundle(f"version {version} of {name} holds no bundle{where}")
        shutil.copytree(bundles[0].parent, Path(beside) / "bundle", symlinks=True)
        bundle.verify(Path(beside) / "bundle")
        os.rename(Path(beside) / "bundle", to)
    return to


@tracking.door
def artifact(uri: str, name: str, version: str, path: str, to: Path) -> Path | None:
    """Copy what lies at `path` among the artifacts of a version's run into the folder `to`; None if nothing does."""
    run_id = _version(uri, name, version).run_id
    client = tracking.client(uri)
    here = _here(uri, run_id, client.get_run(run_id).info.artifact_uri)
    if here:
        return _copy(here / path, to / path)
    if not any(entry.path == path for entry in client.list_artifacts(run_id)):
        return None
    return Path(client.download_artifacts(run_id, path, str(to)))


def _load_pyfunc(path: str) -> _Explored:
    """What MLflow calls when somebody opens a version with `mlflow.pyfunc`."""
    return _Explored(bundle.open_model(Path(path))[1])


class _Explored:
    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        return self._model.score(frame, **(params or {}))


def _here(uri: str, run_id: str, remembered: str) -> Path | None:
    """Where something of a run lies now, given the address that MLflow remembers; None if that is for MLflow to say."""
    beside = tracking.artifacts(uri)
    _, ours, rest = remembered.rpartition(f"/artifacts/{run_id}/")
    return beside / run_id / unquote(rest) if beside and ours else None


def _copy(source: Path, to: Path) -> Path | None:
    if not source.exists():
        return None
    to.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        return Path(shutil.copytree(source, to, dirs_exist_ok=True))
    return Path(shutil.copy(source, to))


def _experiment(uri: str) -> str:
    """The experiment to record in: one whose artifacts lie beside the database, as it lies now.

    An experiment keeps its location for good, so a home that was moved or copied gets another experiment.
    """
    client = tracking.client(uri)
    beside = tracking.artifacts(uri)
    # Without a location, MLflow would put artifacts of a SQLite store into the working directory.
    location = beside.as_uri() if beside else None
    name = _EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is not None and location and found.artifact_location != location:
        name = f"{_EXPERIMENT}-{sha256(location.encode()).hexdigest()[:8]}"
        found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    return str(client.create_experiment(name, artifact_location=location))


def _log_bundle(client: MlflowClient, run_id: str, folder: Path) -> str:
    """Store a bundle so that MLflow's loader can open it too; returns where it lies.

    Requirements are named, since MLflow would otherwise spend twenty seconds on guessing them.
    """
    from mlflow import pyfunc

    needs = [f"{package}=={installed(package)}" for package in ("numpy", "pandas", "scipy")]
    with tempfile.TemporaryDirectory() as beside:
        saved = Path(beside) / "model"
        pyfunc.save_model(saved, loader_module=__name__, data_path=str(folder), pip_requirements=needs)
        client.log_artifacts(run_id, str(saved), "model")
    return f"{client.get_run(run_id).info.artifact_uri}/model"


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _all(uri: str, name: str) -> list[Any]:
    if "'" in name:
        raise NoVersion("a model's name holds no quotation marks")
    found: list[Any] = []
    page = None
    while page != "":
        some = tracking.client(uri).search_model_versions(f"name='{name}'", page_token=page)
        found, page = [*found, *some], some.token or ""
    return found


def _version(uri: str, name: str, version: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return tracking.client(uri).get_model_version(name, version)
    except MlflowException as error:
        if error.error_code not in tracking.ABSENT:
            raise
        raise NoVersion(f"{name} has no version {version}; see: regulars models") from None
