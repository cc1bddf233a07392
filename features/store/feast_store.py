"""Opens Feast's own store over a folder of snapshots and an online store, without what Feast need not import."""

import atexit
import contextlib
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from feast import FeatureStore as FeastStore

SETTINGS_FILE = Path(__file__).parents[1] / "feature_store.yaml"
REGISTRY_VARIABLE = "REGULARS_FEAST_REGISTRY"
ONLINE_STORES = {
    **dict.fromkeys(("redis", "rediss"), "features.store.online_redis.SteadyRedisOnlineStore"),
    **dict.fromkeys(("postgresql", "postgresql+psycopg"), "features.store.online_postgres.SteadyPostgresOnlineStore"),
}


def online_config(folder: Path, address: str | None) -> dict[str, str]:
    """Feast's settings of the online store at an address, or of the SQLite file; see `feature_store.open_store`.

    Raises ValueError for an address of another kind, without its password.
    """
    if address is None:
        return {
            "type": "features.store.online_sqlite.SteadySqliteOnlineStore",
            "path": str(folder / "feast" / "online.db"),
        }
    parts = urlsplit(address)
    store_type = ONLINE_STORES.get(parts.scheme)
    if store_type is None or not parts.hostname:
        raise ValueError(
            "online_store must be redis://HOST:PORT/DB or postgresql://USER@HOST:PORT/DATABASE; "
            "leave it out for SQLite in the home"
        )
    return {"type": store_type, "url": driver_url(address)}


def is_registry_shared() -> bool:
    """Whether the registry is at an address, where several homes use it."""
    return bool(os.environ.get(REGISTRY_VARIABLE))


def registry_config(folder: Path) -> dict[str, Any]:
    """Feast's settings of its registry: a file in the folder, or tables at the address in REGULARS_FEAST_REGISTRY.

    Raises ValueError for an address that is not one of PostgreSQL, without its password.
    """
    # Without the second, materialisation makes every running server unavailable (and a killed run leaves it so).
    common = {"cache_ttl_seconds": 10, "serve_features_while_materializing": True}
    address = os.environ.get(REGISTRY_VARIABLE)
    if not address:
        store = "features.store.online_sqlite.WholeRegistryStore"
        return {"path": str(folder / "feast" / "registry.db"), "registry_store_type": store, **common}
    if urlsplit(address).scheme not in ("postgresql", "postgresql+psycopg"):
        raise ValueError(f"{REGISTRY_VARIABLE} must be postgresql://USER@HOST:PORT/DATABASE")
    url = address.replace("postgresql://", "postgresql+psycopg://", 1)
    return {"registry_type": "sql", "path": url, "sqlalchemy_config_kwargs": {"pool_pre_ping": True}, **common}


def driver_url(address: str) -> str:
    """The address as a driver takes it, without SQLAlchemy's name of the driver."""
    return address.replace("postgresql+psycopg://", "postgresql://", 1)


def open_feast(folder: Path, online: str) -> "FeastStore":
    """Open Feast over a folder of snapshots; `online` is its settings of the online store as JSON."""
    os.environ.setdefault("FEAST_USAGE", "False")
    with silence_feast(), _without_torch(), _without_type_checks():
        import ibis
        import yaml
        from feast import FeatureStore as FeastStore
        from feast import RepoConfig

        # Feast compares times in the session's time zone, which would otherwise be that of the machine.
        ibis.get_backend().raw_sql("set timezone = 'UTC'")
        # Else DuckDB keeps the memory of its largest join (on the demo 0.8 GB) for the rest of the run.
        ibis.get_backend().raw_sql("set allocator_background_threads = true")
        # A DuckDB that is open when Python exits prints fifty lines about leaks that are not real.
        atexit.register(_close_default_backend)
        registry = json.dumps(registry_config(folder))
        text = Template(SETTINGS_FILE.read_text(encoding="utf-8"))
        settings = yaml.safe_load(
            text.substitute(REGULARS_FEAST_REGISTRY_CONFIG=registry, REGULARS_FEAST_ONLINE=online)
        )
        config = RepoConfig(**settings)
        config.repo_path = SETTINGS_FILE.parent
        return FeastStore(config=config)


@contextlib.contextmanager
def _without_type_checks() -> Iterator[None]:
    """Keep Feast from rewriting its functions to check types at run time: ten of the twelve seconds of its import."""
    import typeguard

    typechecked = typeguard.typechecked
    typeguard.typechecked = lambda target: target  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = typechecked


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Keep Feast from importing torch for images, which no shop here has: 190 MB. It may be imported later."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]


def _close_default_backend() -> None:
    import ibis

    ibis.options.default_backend = None


@contextlib.contextmanager
def silence_feast() -> Iterator[None]:
    """Suppress Feast's warnings, prints and log records below ERROR."""
    logger = logging.getLogger("feast")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
