"""The Feast feature store: training reads features as of the past from it, serving reads the present ones."""

import atexit
import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.store import feature_frames

if TYPE_CHECKING:
    from feast import FeatureService
    from feast import FeatureStore as FeastStore

SETTINGS_FILE = Path(__file__).parents[1] / "feature_store.yaml"
ROW_NUMBER = "entity_place"
ONLINE_STORES = {
    **dict.fromkeys(("redis", "rediss"), "features.store.online_redis.SteadyRedisOnlineStore"),
    **dict.fromkeys(("postgresql", "postgresql+psycopg"), "features.store.online_postgres.SteadyPostgresOnlineStore"),
}


class NoSnapshot(LookupError):
    """There is no snapshot to copy into the online store."""


class FeatureStore:
    """The features of one home; see `open_store`."""

    def __init__(self, folder: Path, feast: "FeastStore") -> None:
        self.folder = folder
        self.feast = feast
        self._services: dict[str, FeatureService] = {}

    def apply(self) -> None:
        """Register every view and service with Feast; idempotent, and works before any snapshot exists."""
        from features import definitions

        (self.folder / "feast").mkdir(parents=True, exist_ok=True)
        with _silence_feast():
            self.feast.apply(definitions.feast_objects(self.folder))
        self._services.clear()

    def feature_names(self, service: str) -> list[str]:
        """Features of a service, in the order of the columns of its frames."""
        return list(self._element_types(service))

    def historical_features(self, service: str, entities: pd.DataFrame) -> pd.DataFrame:
        """Features as of each entity's event_timestamp, from the offline store; one row per entity.

        entities: columns customer_key, event_timestamp. Rows keep their order and index: these two columns, then those
        of the service as float64 (NaN where missing) or arrays (None where missing). A time between two snapshots gets
        the earlier one.
        """
        element_types = self._element_types(service)
        requested = entities[["customer_key", "event_timestamp"]].reset_index(drop=True)
        requested = requested.assign(event_timestamp=pd.to_datetime(requested["event_timestamp"], utc=True))
        if requested.empty:
            return feature_frames.build_frame(requested, {name: [] for name in element_types}, element_types)
        requested[ROW_NUMBER] = np.arange(len(requested))
        with _silence_feast():
            job = self.feast.get_historical_features(requested, self._service(service))
            result = job.to_df()
        # Some offline stores drop rows without features, and none guarantees an order.
        result = result.set_index(ROW_NUMBER).reindex(requested[ROW_NUMBER])
        columns = {name: result[name].to_numpy() for name in element_types}
        return feature_frames.build_frame(requested.drop(columns=ROW_NUMBER), columns, element_types).set_axis(
            entities.index
        )

    def materialise(self, as_of: datetime) -> dict[str, int]:
        """Copy each view's latest rows not after as_of into the online store; returns their number by view.

        Only rows of that one timestamp are copied. Idempotent; a row never replaces a newer one, nor one pushed since.
        Raises NoSnapshot where a view has no snapshot, or none that old.
        """
        return {view.name: self._materialise(view.name, as_of) for view in self._views()}

    def online_features(self, service: str, keys: Sequence[int]) -> pd.DataFrame:
        """Features of customers in the online store, one row per key in the order of `keys`.

        Columns: customer_key, event_timestamp (of the newest view read; NaT for a customer not in the store), then
        those of the service as in historical_features.
        """
        element_types = self._element_types(service)
        frame = pd.DataFrame({"customer_key": np.asarray(keys, dtype="int64")})
        if frame.empty:
            return feature_frames.build_frame(
                frame.assign(event_timestamp=feature_frames.newest_timestamps([], 0)),
                {name: [] for name in element_types},
                element_types,
            )
        entity_rows = {"customer_key": frame["customer_key"].tolist()}
        response = self.feast.get_online_features(self._service(service), entity_rows).proto
        by_name = dict(zip(response.metadata.feature_names.val, response.results, strict=True))
        frame["event_timestamp"] = feature_frames.newest_timestamps(
            [by_name[name].event_timestamps for name in element_types], len(frame)
        )
        return feature_frames.build_frame(
            frame,
            {name: feature_frames.unpack_values(by_name[name].values, element_types[name]) for name in element_types},
            element_types,
        )

    def customer_features(self, key: int) -> dict[str, Any]:
        """Every feature of one customer in the online store, by name; empty before the first nightly run."""
        from features import definitions

        with _silence_feast():
            applied_services = {service.name for service in self.feast.list_feature_services()}
            rows = [
                self.online_features(service, [key]) for service in definitions.SERVICES if service in applied_services
            ]
        feature_rows = [row.drop(columns=["customer_key", "event_timestamp"]) for row in rows]
        return {str(name): frame[name].iloc[0] for frame in feature_rows for name in frame}

    def push(self, view: str, frame: pd.DataFrame) -> None:
        """Write rows of a view to the online store.

        frame: columns customer_key, event_timestamp and all features of the view. A row that is older than the stored
        one is silently ignored.
        """
        if frame.empty:
            return
        event_at = pd.to_datetime(frame["event_timestamp"], utc=True)
        with _silence_feast():
            self.feast.write_to_online_store(view, frame.assign(event_timestamp=event_at, created=event_at))

    def delete_customers(self, keys: Sequence[int]) -> None:
        """Remove these customers from the online values and snapshots of every view; idempotent."""
        if not len(keys):
            return
        from features.snapshots import snapshot
        from features.store.online_sqlite import to_entity_keys

        with _silence_feast():
            online: Any = self.feast._get_provider().online_store
            online.delete_customers(self.feast.config, self._views(), to_entity_keys(keys))
        for path in sorted(self.folder.glob("*/part.parquet")):
            _delete_rows(path, keys)
        snapshot.remove_partial_files(self.folder)

    def _materialise(self, view: str, as_of: datetime) -> int:
        latest_at, rows = _latest_rows(self.folder / view / "part.parquet", as_of)
        if latest_at is None:
            return 0
        with _silence_feast():
            self.feast.materialize(latest_at, latest_at, feature_views=[view])
        return rows

    def _views(self) -> list[Any]:
        return sorted(self.feast.list_feature_views(), key=lambda view: view.name)

    def _service(self, name: str) -> "FeatureService":
        # Feast rebuilds a service from its registry at each call, which takes a millisecond per few features.
        if name not in self._services:
            self._services[name] = self.feast.get_feature_service(name, allow_cache=True)
        return self._services[name]

    def _element_types(self, service: str) -> dict[str, str | None]:
        """Element type of each feature's list, as a name of numpy; None for a plain number."""
        projections = self._service(service).feature_view_projections
        return {
            field.name: feature_frames.list_element_type(field.dtype) for view in projections for field in view.features
        }


def open_store(folder: Path, online: str | None = None) -> FeatureStore:
    """Open the feature store over a folder of snapshots; Feast's own files are in folder/feast.

    `online` is the address of an online store, redis://[:PASSWORD@]HOST:PORT/DB or
    postgresql://USER:PASSWORD@HOST:PORT/DATABASE; without it, a SQLite file in the folder. Raises ValueError for any
    other address. Settings are read at the call, so two stores in one process stay separate.
    """
    home = Path(folder).absolute()
    (home / "feast").mkdir(parents=True, exist_ok=True)
    return FeatureStore(home, _open_feast(home, json.dumps(_online_config(home, online))))


def _online_config(folder: Path, address: str | None) -> dict[str, str]:
    """Feast's settings of the online store at an address."""
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
    return {"type": store_type, "url": address.replace("postgresql+psycopg://", "postgresql://", 1)}


def _open_feast(folder: Path, online: str) -> "FeastStore":
    os.environ.setdefault("FEAST_USAGE", "False")
    with _silence_feast():
        import ibis
        import yaml
        from feast import FeatureStore as FeastStore
        from feast import RepoConfig

        # Feast compares times in the session's time zone, which would otherwise be that of the machine.
        ibis.get_backend().raw_sql("set timezone = 'UTC'")
        # A DuckDB that is open when Python exits prints fifty lines about leaks that are not real.
        atexit.register(_close_default_backend)
        text = Template(SETTINGS_FILE.read_text(encoding="utf-8"))
        settings = yaml.safe_load(text.substitute(REGULARS_FEAST_HOME=folder, REGULARS_FEAST_ONLINE=online))
        config = RepoConfig(**settings)
        config.repo_path = SETTINGS_FILE.parent
        return FeastStore(config=config)


def _close_default_backend() -> None:
    import ibis

    ibis.options.default_backend = None


@contextlib.contextmanager
def _silence_feast() -> Iterator[None]:
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


def _latest_rows(path: Path, as_of: datetime) -> tuple[datetime | None, int]:
    if not path.exists():
        raise NoSnapshot(f"there is no snapshot at {path}; write one first: regulars run")
    times = pq.read_table(path, columns=["event_timestamp"])["event_timestamp"]
    if not len(times):
        return None, 0
    times = times.filter(pc.less_equal(times, pc.cast(as_of.astimezone(UTC), times.type)))
    if not len(times):
        raise NoSnapshot(f"no snapshot in {path} is as old as {as_of}; write one first: regulars run")
    latest = pc.max(times)
    return latest.as_py(), int(pc.sum(pc.equal(times, latest)).as_py())


def _delete_rows(path: Path, keys: Sequence[int]) -> None:
    """Rewrite a file without the rows of some customers; a file without them stays as it is."""
    if "customer_key" not in pq.read_schema(path).names:
        return
    table = pq.read_table(path)
    is_deleted = pc.is_in(table["customer_key"], pa.array(keys, pa.int64()))
    if pc.any(is_deleted).as_py():
        partial = path.with_name(f".part.{os.getpid()}.parquet")
        pq.write_table(table.filter(pc.invert(is_deleted)), partial)
        os.replace(partial, path)
