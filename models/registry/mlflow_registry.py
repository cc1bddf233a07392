"""The model registry in MLflow: trained versions, their training data and metrics, and which one is champion.

The only code that uses MLflow, with mlflow_client and mlflow_runs behind it. What is registered is a bundle
(`models.registry.bundle`), never a pickle. MLflow's own loader can open it for exploration; serving opens the
published copy instead.

A registry in a SQLite file is its folder: artifacts are looked up beside the database at its current path, although
MLflow stores the original one. So a home can be moved, and a copy never touches the original.
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

from models.registry import bundle, mlflow_client, mlflow_runs
from models.registry.mlflow_runs import Metrics

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

_EXPERIMENT = "regulars"
#: The module that MLflow loads a version with; 0.4.0 stored this name, so it must remain importable.
LOADER_MODULE = "models.registry"


class UnknownVersion(Exception):
    """The registry has no such version; the message names it."""


@dataclass(frozen=True)
class RegisteredVersion:
    """What the registry has about one version; `metrics` are values by cutoff ("" for none) and name."""

    name: str
    version: str
    run_id: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, dict[str, float]]


@mlflow_client.translate_errors
def register_version(
    uri: str,
    name: str,
    folder: Path,
    *,
    params: Mapping[str, Any] | None = None,
    metrics: Metrics | None = None,
    tags: Mapping[str, Any] | None = None,
    artifacts: Mapping[str, Any] | None = None,
) -> tuple[str, str]:
    """Register a bundle as a new version of a model, with the run that made it; return (version, run id).

    `tags` are set on the version and on the run. `artifacts` maps file names to a path, a text, or content for JSON. A
    registration that fails half-way leaves a failed run without a version, which nothing lists.
    """
    bundle.verify(folder)
    client = mlflow_client.open_client(uri)
    tag_values = {key: str(value) for key, value in (tags or {}).items()}
    run = client.create_run(_experiment_id(uri), run_name=name)
    with mlflow_runs.finish_run(client, run.info.run_id):
        mlflow_runs.log_run(client, run.info.run_id, params or {}, metrics or {}, tag_values)
        for file, content in (artifacts or {}).items():
            mlflow_runs.log_artifact(client, run.info.run_id, file, content)
        source = _log_bundle(client, run.info.run_id, folder)
        _ensure_model(client, name)
        created = client.create_model_version(name, source, run_id=run.info.run_id, tags=tag_values)
    return str(created.version), run.info.run_id


@mlflow_client.translate_errors
def record_run(
    uri: str,
    name: str,
    *,
    params: Mapping[str, Any] | None = None,
    metrics: Metrics | None = None,
    artifacts: Mapping[str, Any] | None = None,
) -> str:
    """Record metrics that belong to no version, such as those of a backtest, as a separate run; return its id."""
    client = mlflow_client.open_client(uri)
    run = client.create_run(_experiment_id(uri), run_name=name)
    with mlflow_runs.finish_run(client, run.info.run_id):
        mlflow_runs.log_run(client, run.info.run_id, params or {}, metrics or {}, {})
        for file, content in (artifacts or {}).items():
            mlflow_runs.log_artifact(client, run.info.run_id, file, content)
    return str(run.info.run_id)


@mlflow_client.translate_errors
def list_versions(uri: str, name: str) -> list[str]:
    """All versions of a model, oldest first."""
    return sorted((str(registered.version) for registered in _search_versions(uri, name)), key=int)


@mlflow_client.translate_errors
def find_version(uri: str, name: str, fingerprint: str) -> str | None:
    """The newest version with this `fingerprint` tag, so that nothing is trained twice; None where there is none."""
    matches = [
        str(registered.version)
        for registered in _search_versions(uri, name)
        if registered.tags.get("fingerprint") == fingerprint
    ]
    return max(matches, key=int, default=None)


@mlflow_client.translate_errors
def version_by_alias(uri: str, name: str, alias_name: str) -> str | None:
    """The version with the alias `champion` or `challenger`; None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return str(mlflow_client.open_client(uri).get_model_version_by_alias(name, alias_name).version)
    except MlflowException as error:
        if error.error_code in mlflow_client.ABSENT_CODES:
            return None
        raise


@mlflow_client.translate_errors
def set_alias(uri: str, name: str, alias_name: str, version: str | None) -> None:
    """Give this version the alias `champion` or `challenger`; None removes the alias."""
    if version is None:
        if version_by_alias(uri, name, alias_name) is not None:
            mlflow_client.open_client(uri).delete_registered_model_alias(name, alias_name)
        return
    _mlflow_version(uri, name, version)
    mlflow_client.open_client(uri).set_registered_model_alias(name, alias_name, version)


@mlflow_client.translate_errors
def get_version(uri: str, name: str, version: str) -> RegisteredVersion:
    """What was recorded with one version. Raises UnknownVersion where the registry does not have it."""
    registered = _mlflow_version(uri, name, version)
    run = mlflow_client.open_client(uri).get_run(registered.run_id)
    return RegisteredVersion(
        name,
        str(registered.version),
        registered.run_id,
        dict(registered.tags),
        dict(run.data.params),
        mlflow_runs.read_metrics(mlflow_client.open_client(uri), run),
    )


@mlflow_client.translate_errors
def download_bundle(uri: str, name: str, version: str, target: Path) -> Path:
    """Copy a version's bundle into the new folder `target`, verify it, and return `target`.

    Raises UnknownVersion where the registry does not have the version, and InvalidBundle where the version has no
    bundle.
    """
    registered = _mlflow_version(uri, name, version)
    from mlflow.artifacts import download_artifacts

    local_path = _local_path(uri, registered.run_id, registered.source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download.", dir=target.parent) as temporary:
        downloaded = local_path or Path(
            download_artifacts(artifact_uri=registered.source, dst_path=temporary, tracking_uri=uri)
        )
        bundles = list(downloaded.glob(f"data/*/{bundle.MANIFEST}"))
        if len(bundles) != 1:
            where = f" in {local_path}; bring that folder back from a backup" if local_path else ""
            raise bundle.InvalidBundle(f"version {version} of {name} holds no bundle{where}")
        shutil.copytree(bundles[0].parent, Path(temporary) / "bundle", symlinks=True)
        bundle.verify(Path(temporary) / "bundle")
        os.rename(Path(temporary) / "bundle", target)
    return target


@mlflow_client.translate_errors
def download_artifact(uri: str, name: str, version: str, path: str, target: Path) -> Path | None:
    """Copy artifact `path` of a version's run into the folder `target`; None where there is none."""
    run_id = _mlflow_version(uri, name, version).run_id
    client = mlflow_client.open_client(uri)
    local_path = _local_path(uri, run_id, client.get_run(run_id).info.artifact_uri)
    if local_path:
        return _copy_artifact(local_path / path, target / path)
    if not any(entry.path == path for entry in client.list_artifacts(run_id)):
        return None
    return Path(client.download_artifacts(run_id, path, str(target)))


def load_pyfunc(path: str) -> _PyfuncModel:
    """MLflow's entry point when a version is opened with `mlflow.pyfunc`."""
    return _PyfuncModel(bundle.open_model(Path(path))[1])


class _PyfuncModel:
    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        return self._model.score(frame, **(params or {}))


def _local_path(uri: str, run_id: str, stored_uri: str) -> Path | None:
    """Current path of a run's file, from the address that MLflow stored; None where MLflow must resolve it."""
    artifact_folder = mlflow_client.local_artifact_folder(uri)
    _, separator, rest = stored_uri.rpartition(f"/artifacts/{run_id}/")
    return artifact_folder / run_id / unquote(rest) if artifact_folder and separator else None


def _copy_artifact(source: Path, target: Path) -> Path | None:
    if not source.exists():
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        return Path(shutil.copytree(source, target, dirs_exist_ok=True))
    return Path(shutil.copy(source, target))


def _experiment_id(uri: str) -> str:
    """The experiment to record in: one whose artifacts are beside the database at its current path.

    An experiment never changes its location, so a home that was moved or copied gets another experiment.
    """
    client = mlflow_client.open_client(uri)
    artifact_folder = mlflow_client.local_artifact_folder(uri)
    # Without a location, MLflow would put artifacts of a SQLite store into the working directory.
    location = artifact_folder.as_uri() if artifact_folder else None
    name = _EXPERIMENT
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and location and experiment.artifact_location != location:
        name = f"{_EXPERIMENT}-{sha256(location.encode()).hexdigest()[:8]}"
        experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    return str(client.create_experiment(name, artifact_location=location))


def _log_bundle(client: MlflowClient, run_id: str, folder: Path) -> str:
    """Store a bundle so that MLflow's loader can open it too; return its address.

    Requirements are given, since MLflow would otherwise take twenty seconds to infer them.
    """
    from mlflow import pyfunc

    requirements = [f"{package}=={installed(package)}" for package in ("numpy", "pandas", "scipy")]
    with tempfile.TemporaryDirectory() as temporary:
        saved = Path(temporary) / "model"
        pyfunc.save_model(saved, loader_module=LOADER_MODULE, data_path=str(folder), pip_requirements=requirements)
        client.log_artifacts(run_id, str(saved), "model")
    return f"{client.get_run(run_id).info.artifact_uri}/model"


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _search_versions(uri: str, name: str) -> list[Any]:
    if "'" in name:
        raise UnknownVersion("a model's name must not contain a quotation mark")
    matches: list[Any] = []
    page = None
    while page != "":
        batch = mlflow_client.open_client(uri).search_model_versions(f"name='{name}'", page_token=page)
        matches, page = [*matches, *batch], batch.token or ""
    return matches


def _mlflow_version(uri: str, name: str, version: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return mlflow_client.open_client(uri).get_model_version(name, version)
    except MlflowException as error:
        if error.error_code not in mlflow_client.ABSENT_CODES:
            raise
        raise UnknownVersion(f"{name} has no version {version}; see: regulars models") from None
