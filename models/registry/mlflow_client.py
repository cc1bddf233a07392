"""Tracking: the way to MLflow: where its database is, how it is opened, and what is said when it does not answer.

MLflow takes seconds to import, so that is done when it is first needed, with its telemetry off.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
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
_SQLITE = "sqlite:///"
#: Whose errors mean that the registry is away, unless MLflow gives one of these answers.
_FOREIGN = {"mlflow", "sqlalchemy", "alembic", "sqlite3", "requests", "urllib3"}
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_ANSWERS = (*ABSENT, "RESOURCE_ALREADY_EXISTS", "INVALID_STATE")

_Rest = ParamSpec("_Rest")
_Answer = TypeVar("_Answer")


class RegistryDown(ConnectionError):
    """The registry cannot be asked; the message says where it was sought, and never a password."""


def door(ask: Callable[Concatenate[str, _Rest], _Answer]) -> Callable[Concatenate[str, _Rest], _Answer]:
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


def imported() -> None:
    """Make sure that MLflow is imported quietly and with its telemetry off."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


@lru_cache(maxsize=8)
def client(uri: str) -> MlflowClient:
    imported()
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
    beside = artifacts(uri)
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


def artifacts(uri: str) -> Path | None:
    """The folder for artifacts beside a SQLite database, as it lies now; None for any other registry."""
    if not uri.startswith(_SQLITE):
        return None
    return Path(uri.removeprefix(_SQLITE).partition("?")[0]).parent.resolve() / "artifacts"
