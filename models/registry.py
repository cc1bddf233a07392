"""The registry: which models were trained, on what, how well they did, and which one is champion.

The door to MLflow, and the only one. MLflow takes seconds to import, so that is done when it is first needed,
with its telemetry off. What is registered is a bundle (`models.bundle`), never a pickle. MLflow's own loader
can open it for somebody who explores; serving opens the published copy instead.

A registry in a SQLite file is its folder: artifacts are found beside the database wherever it lies now, though
MLflow remembers where it lay once. So a home can be moved, and a copy never touches the original.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, wraps
from hashlib import sha256
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import unquote

from models import bundle

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow would try for four minutes, with two minutes for each try.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
_EXPERIMENT = "regulars"
_SQLITE = "sqlite:///"
#: Whose errors mean that the registry is away, unless MLflow gives one of these answers.
_FOREIGN = {"mlflow", "sqlalchemy", "alembic", "sqlite3", "requests", "urllib3"}
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_ANSWERS = (*_ABSENT, "RESOURCE_ALREADY_EXISTS", "INVALID_STATE")
#: What MLflow's store takes in one batch.
_MOST_METRICS, _MOST_PARAMS, _MOST_TAGS = 1000, 100, 100

#: Metrics by name, or by moment (an ISO date or time) and then by name.
Metrics = Mapping[str, "float | Mapping[str, float]"]

_Rest = ParamSpec("_Rest")
_Answer = TypeVar("_Answer")


class NoVersion(Exception):
    """The registry has no such version; the message says which."""


class RegistryDown(ConnectionError):
    """The registry cannot be asked; the message says where it was sought, and never a password."""


def _door(ask: Callable[Concatenate[str, _Rest], _Answer]) -> Callable[Concatenate[str, _Rest], _Answer]:
    """Turn whatever MLflow and the libraries below it raise while the registry is away into RegistryDown."""

    @wraps(ask)
    def asked(uri: str, *args: _Rest.args, **settings: _Rest.kwargs) -> _Answer:
        try:
            return ask(uri, *args, **settings)
        except Exception as error:
            if not _means_down(error):
                raise
            raise _down(uri, error) from (error if uri.startswith(_SQLITE) else None)

    return asked


@dataclass(frozen=True)
class Recorded:
    """What the registry knows of one version. `metrics` holds values by moment ("" for none) and name."""

    name: str
    version: str
    run_id: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, dict[str, float]]


@_door
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


@_door
def note(
    uri: str,
    name: str,
    *,
    params: Mapping[str, Any] | None = None,
    metrics: Metrics | None = None,
    artifacts: Mapping[str, Any] | None = None,
) -> str:
    """Keep figures that belong to no version, such as those of a backtest, as a run of their own; its id."""
    client = _client(uri)
    run = client.create_run(_experiment(uri), run_name=name)
    with _ended(client, run.info.run_id):
        _log(client, run.info.run_id, params or {}, metrics or {}, {})
        for file, content in (artifacts or {}).items():
            _log_artifact(client, run.info.run_id, file, content)
    return str(run.info.run_id)


@_door
def versions(uri: str, name: str) -> list[str]:
    """All versions of a model, oldest first."""
    return sorted((str(found.version) for found in _all(uri, name)), key=int)


@_door
def find(uri: str, name: str, fingerprint: str) -> str | None:
    """The newest version with this `fingerprint` among its tags, so that nothing need be trained twice."""
    same = [str(found.version) for found in _all(uri, name) if found.tags.get("fingerprint") == fingerprint]
    return max(same, key=int, default=None)


@_door
def alias(uri: str, name: str, which: str) -> str | None:
    """The version that is called `champion` or `challenger`; None where none is."""
    from mlflow.exceptions import MlflowException

    try:
        return str(_client(uri).get_model_version_by_alias(name, which).version)
    except MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise


@_door
def set_alias(uri: str, name: str, which: str, version: str | None) -> None:
    """Call this version `champion` or `challenger`; None takes the name away from whoever has it."""
    if version is None:
        if alias(uri, name, which) is not None:
            _client(uri).delete_registered_model_alias(name, which)
        return
    _version(uri, name, version)
    _client(uri).set_registered_model_alias(name, which, version)


@_door
def facts(uri: str, name: str, version: str) -> Recorded:
    """What was recorded with one version."""
    found = _version(uri, name, version)
    run = _client(uri).get_run(found.run_id)
    return Recorded(name, str(found.version), found.run_id, dict(found.tags), dict(run.data.params), _metrics(uri, run))


@_door
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


@_door
def artifact(uri: str, name: str, version: str, path: str, to: Path) -> Path | None:
    """Copy what lies at `path` among the artifacts of a version's run into the folder `to`; None if nothing does."""
    run_id = _version(uri, name, version).run_id
    client = _client(uri)
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

    try:
        if not uri.startswith("http"):
            _open_at_once(uri)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    # Whatever keeps MLflow from opening it, there is no registry to ask.
    except Exception as error:
        raise _down(uri, error) from (error if uri.startswith(_SQLITE) else None)


def _open_at_once(uri: str) -> None:
    """Make room for a database; one that cannot be opened is tried once, where MLflow would try for 100 seconds."""
    from mlflow.store.db import utils

    utils.MAX_RETRY_COUNT = 1
    beside = _artifacts(uri)
    if beside:
        beside.parent.mkdir(parents=True, exist_ok=True)
        place = Path(uri.removeprefix(_SQLITE).partition("?")[0])
        if place.name != ":memory:" and not place.exists():
            _appear_whole(place)


def _appear_whole(place: Path) -> None:
    """A new database is there with all its tables or not at all: MLflow cannot go on with one that was cut short."""
    from mlflow.store.db import utils

    with tempfile.TemporaryDirectory(prefix=".mlflow.", dir=place.parent) as beside:
        engine = utils.create_sqlalchemy_engine(f"{_SQLITE}{beside}/new.db")
        utils._initialize_tables(engine)
        engine.dispose()
        with suppress(FileExistsError):  # another program was quicker, and its database is as good
            os.link(f"{beside}/new.db", place)
    for leftover in place.parent.glob(".mlflow.*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _means_down(error: Exception) -> bool:
    foreign = any(kind.__module__.partition(".")[0] in _FOREIGN for kind in type(error).__mro__)
    return foreign and getattr(error, "error_code", None) not in _ANSWERS


def _down(uri: str, error: Exception) -> RegistryDown:
    """Says where, without the user, password and settings that an address can hold."""
    place = uri
    if not uri.startswith(_SQLITE):
        scheme, mark, rest = uri.rpartition("://")
        place = scheme + mark + re.split("[/?#]", rest.rpartition("@")[2])[0]
    return RegistryDown(
        f"the registry at {place} does not answer ({type(error).__name__}); "
        "check MLFLOW_TRACKING_URI, and that a sound MLflow registry is there"
    )


def _artifacts(uri: str) -> Path | None:
    """The folder for artifacts beside a SQLite database, as it lies now; None for any other registry."""
    if not uri.startswith(_SQLITE):
        return None
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]).parent.resolve() / "artifacts"


def _here(uri: str, run_id: str, remembered: str) -> Path | None:
    """Where something of a run lies now, given the address that MLflow remembers; None if that is for MLflow to say."""
    beside = _artifacts(uri)
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
    client = _client(uri)
    beside = _artifacts(uri)
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
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        raise NoVersion(f"{name} has no version {version}; see: regulars models") from None
