"""The registry: which models were trained, on what, how well they did, and which one is champion.

The door to MLflow, and the only one. MLflow takes seconds to import, so that is done when it is first needed,
with its telemetry off. What is registered is a bundle (`models.bundle`), never a pickle. MLflow's own loader
can open it for somebody who explores; serving opens the published copy instead.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import bundle

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_CONFIGURE_LOGGING": "false",
}
_EXPERIMENT = "regulars"
#: What MLflow's store takes in one batch.
_MOST_METRICS, _MOST_PARAMS, _MOST_TAGS = 1000, 100, 100

#: Metrics by name, or by moment (an ISO date or time) and then by name.
Metrics = Mapping[str, "float | Mapping[str, float]"]


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
    client = _client(uri)
    words = {key: str(value) for key, value in (tags or {}).items()}
    run = client.create_run(_experiment(uri), run_name=name)
    with _ended(client, run.info.run_id):
        _log(client, run.info.run_id, params or {}, metrics or {}, words)
        for file, content in (artifacts or {}).items():
            _log_artifact(client, run.info.run_id, file, content)
        source = _log_bundle(client, run.info.run_id, folder)
        _ensure_model(client, name)
        made = client.create_model_version(name, source, run_id=run.info.run_id, tags=words)
    return str(made.version), run.info.run_id


def versions(uri: str, name: str) -> list[str]:
    """All versions of a model, oldest first."""
    return sorted((str(found.version) for found in _all(uri, name)), key=int)


def find(uri: str, name: str, fingerprint: str) -> str | None:
    """The newest version with this `fingerprint` among its tags, so that nothing need be trained twice."""
    same = [str(found.version) for found in _all(uri, name) if found.tags.get("fingerprint") == fingerprint]
    return max(same, key=int, default=None)


def alias(uri: str, name: str, which: str) -> str | None:
    """The version that is called `champion` or `challenger`; None where none is."""
    from mlflow.exceptions import MlflowException

    try:
        return str(_client(uri).get_model_version_by_alias(name, which).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def set_alias(uri: str, name: str, which: str, version: str | None) -> None:
    """Call this version `champion` or `challenger`; None takes the name away from whoever has it."""
    if version is None:
        if alias(uri, name, which) is not None:
            _client(uri).delete_registered_model_alias(name, which)
        return
    _version(uri, name, version)
    _client(uri).set_registered_model_alias(name, which, version)


def facts(uri: str, name: str, version: str) -> Recorded:
    """What was recorded with one version."""
    found = _version(uri, name, version)
    run = _client(uri).get_run(found.run_id)
    return Recorded(name, str(found.version), found.run_id, dict(found.tags), dict(run.data.params), _metrics(uri, run))


def download(uri: str, name: str, version: str, to: Path) -> Path:
    """Copy a version's bundle into the new folder `to`, verified; returns `to`."""
    found = _version(uri, name, version)
    _mlflow()
    from mlflow.artifacts import download_artifacts

    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download.", dir=to.parent) as beside:
        lying = download_artifacts(artifact_uri=found.source, dst_path=beside, tracking_uri=uri)
        bundles = list(Path(lying).glob(f"data/*/{bundle.MANIFEST}"))
        if len(bundles) != 1:
            raise bundle.BadBundle(f"version {version} of {name} holds no bundle")
        shutil.copytree(bundles[0].parent, Path(beside) / "bundle", symlinks=True)
        bundle.verify(Path(beside) / "bundle")
        os.rename(Path(beside) / "bundle", to)
    return to


def artifact(uri: str, name: str, version: str, path: str, to: Path) -> Path | None:
    """Copy what lies at `path` among the artifacts of a version's run into the folder `to`; None if nothing does."""
    found = _version(uri, name, version)
    if not any(entry.path == path for entry in _client(uri).list_artifacts(found.run_id)):
        return None
    return Path(_client(uri).download_artifacts(found.run_id, path, str(to)))


def _load_pyfunc(path: str) -> _Explored:
    """What MLflow calls when somebody opens a version with `mlflow.pyfunc`."""
    return _Explored(bundle.open_model(Path(path))[1])


class _Explored:
    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        return self._model.score(frame, **(params or {}))


def _mlflow() -> None:
    """Make sure that MLflow is imported quietly and with its telemetry off."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


@lru_cache(maxsize=8)
def _client(uri: str) -> MlflowClient:
    _mlflow()
    from mlflow import MlflowClient

    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _experiment(uri: str) -> str:
    client = _client(uri)
    found = client.get_experiment_by_name(_EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    # Without a location, MLflow would put artifacts of a SQLite store into the working directory.
    home = Path(uri.removeprefix("sqlite:///")).absolute().parent / "artifacts"
    location = home.as_uri() if uri.startswith("sqlite:///") else None
    return str(client.create_experiment(_EXPERIMENT, artifact_location=location))


@contextmanager
def _ended(client: MlflowClient, run_id: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def _log(
    client: MlflowClient, run_id: str, params: Mapping[str, Any], metrics: Metrics, tags: Mapping[str, str]
) -> None:
    from mlflow.entities import Param, RunTag

    steps = _steps(metrics)
    settings = [Param(key, str(value)) for key, value in params.items()]
    words = [RunTag(key, value) for key, value in tags.items()]
    if steps:
        words.append(RunTag("moments", json.dumps(_moments(metrics))))
    while steps or settings or words:
        client.log_batch(run_id, steps[:_MOST_METRICS], settings[:_MOST_PARAMS], words[:_MOST_TAGS])
        steps, settings, words = steps[_MOST_METRICS:], settings[_MOST_PARAMS:], words[_MOST_TAGS:]


def _moments(metrics: Metrics) -> list[str]:
    return sorted(moment for moment, values in metrics.items() if isinstance(values, Mapping))


def _steps(metrics: Metrics) -> list[Any]:
    """Every figure as MLflow's own, the step being the place of its moment among the moments, from 0."""
    from mlflow.entities import Metric

    moments = _moments(metrics)
    figures = []
    for moment, values in metrics.items():
        if isinstance(values, Mapping):
            at, step = int(datetime.fromisoformat(moment).timestamp() * 1000), moments.index(moment)
            figures += [Metric(key, float(value), at, step) for key, value in values.items()]
        else:
            figures.append(Metric(moment, float(values), 0, len(moments)))
    return figures


def _metrics(uri: str, run: Any) -> dict[str, dict[str, float]]:
    moments = json.loads(run.data.tags.get("moments", "[]"))
    found: dict[str, dict[str, float]] = {}
    for key in sorted(run.data.metrics):
        for figure in _client(uri).get_metric_history(run.info.run_id, key):
            moment = moments[figure.step] if figure.step < len(moments) else ""
            found.setdefault(moment, {})[key] = figure.value
    return dict(sorted(found.items()))


def _log_artifact(client: MlflowClient, run_id: str, name: str, content: Any) -> None:
    if isinstance(content, str):
        client.log_text(run_id, content, name)
    elif isinstance(content, Path):
        with tempfile.TemporaryDirectory() as beside:
            client.log_artifact(run_id, str(shutil.copy(content, Path(beside) / Path(name).name)), _folder(name))
    else:
        client.log_text(run_id, json.dumps(content, indent=1, default=str), name)


def _folder(name: str) -> str | None:
    parent = str(Path(name).parent)
    return None if parent == "." else parent


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
        some = _client(uri).search_model_versions(f"name='{name}'", page_token=page)
        found, page = [*found, *some], some.token or ""
    return found


def _version(uri: str, name: str, version: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return _client(uri).get_model_version(name, version)
    except MlflowException:
        raise NoVersion(f"{name} has no version {version}; see: regulars models") from None
