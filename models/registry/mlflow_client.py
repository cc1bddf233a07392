"""Access to MLflow: where its database is, how it is opened, and the error when it does not answer.

MLflow takes seconds to import, so it is imported on first use, with its telemetry off.
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

_MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # By default MLflow tries for four minutes, with two minutes for each try.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
_SQLITE_PREFIX = "sqlite:///"
#: Errors of these packages mean that the registry is unavailable, unless MLflow's code is one of _EXPECTED_CODES.
_LIBRARIES = {"mlflow", "sqlalchemy", "alembic", "sqlite3", "requests", "urllib3"}
ABSENT_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
_EXPECTED_CODES = (*ABSENT_CODES, "RESOURCE_ALREADY_EXISTS", "INVALID_STATE")

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class RegistryDown(ConnectionError):
    """The registry cannot be reached; the message names its address, and never a password."""


def translate_errors(
    call: Callable[Concatenate[str, _Params], _Result],
) -> Callable[Concatenate[str, _Params], _Result]:
    """Decorate a function of a registry address: errors of MLflow and its libraries become RegistryDown.

    Raises RegistryDown, from the decorated function, where an error means that the registry is unavailable.
    """

    @wraps(call)
    def wrapper(uri: str, *args: _Params.args, **settings: _Params.kwargs) -> _Result:
        try:
            return call(uri, *args, **settings)
        except Exception as error:
            if not _is_unavailable(error):
                raise
            raise _registry_down(uri, error) from (error if uri.startswith(_SQLITE_PREFIX) else None)

    return wrapper


def import_mlflow() -> None:
    """Import MLflow with its telemetry off and its loggers quiet."""
    for name, value in _MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its warnings repeat the whole address, with any token in it.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


@lru_cache(maxsize=8)
def open_client(uri: str) -> MlflowClient:
    """An MLflow client for this address; a SQLite database is created if absent. Raises RegistryDown if it fails."""
    import_mlflow()
    from mlflow import MlflowClient

    try:
        if not uri.startswith("http"):
            _prepare_database(uri)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    # Whatever prevents MLflow from opening it, there is no registry to use.
    except Exception as error:
        raise _registry_down(uri, error) from (error if uri.startswith(_SQLITE_PREFIX) else None)


def _prepare_database(uri: str) -> None:
    """Create a new database; MLflow opens one with a single try, where it would otherwise try for 100 seconds."""
    from mlflow.store.db import utils

    utils.MAX_RETRY_COUNT = 1
    artifact_folder = local_artifact_folder(uri)
    if artifact_folder:
        artifact_folder.parent.mkdir(parents=True, exist_ok=True)
        path = Path(uri.removeprefix(_SQLITE_PREFIX).partition("?")[0])
        if path.name != ":memory:" and not path.exists():
            _create_database_atomically(path)


def _create_database_atomically(path: Path) -> None:
    """Create a database with all its tables or not at all: MLflow cannot continue with an incomplete one."""
    from mlflow.store.db import utils

    with tempfile.TemporaryDirectory(prefix=".mlflow.", dir=path.parent) as temporary:
        engine = utils.create_sqlalchemy_engine(f"{_SQLITE_PREFIX}{temporary}/new.db")
        utils._initialize_tables(engine)
        engine.dispose()
        with suppress(FileExistsError):  # another process was faster, and its database is as good
            os.link(f"{temporary}/new.db", path)
    for leftover in path.parent.glob(".mlflow.*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _is_unavailable(error: Exception) -> bool:
    is_library_error = any(
        error_class.__module__.partition(".")[0] in _LIBRARIES for error_class in type(error).__mro__
    )
    return is_library_error and getattr(error, "error_code", None) not in _EXPECTED_CODES


def _registry_down(uri: str, error: Exception) -> RegistryDown:
    """An error with the address, without the user, password and settings that it can contain."""
    address = uri
    if not uri.startswith(_SQLITE_PREFIX):
        scheme, separator, rest = uri.rpartition("://")
        address = scheme + separator + re.split("[/?#]", rest.rpartition("@")[2])[0]
    return RegistryDown(
        f"the registry at {address} does not answer ({type(error).__name__}); "
        "check MLFLOW_TRACKING_URI, and that a sound MLflow registry is there"
    )


def local_artifact_folder(uri: str) -> Path | None:
    """The folder for artifacts beside a SQLite database, at its current path; None for any other registry."""
    if not uri.startswith(_SQLITE_PREFIX):
        return None
    return Path(uri.removeprefix(_SQLITE_PREFIX).partition("?")[0]).parent.resolve() / "artifacts"
