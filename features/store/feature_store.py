"""The Feast feature store: training reads features as of the past from it, serving reads the present ones.

Feast itself is imported only where it is needed: to register, to read the past, and to materialise. What a server does,
which is to read, push and delete present features, goes to the online store directly.
"""

import atexit
import contextlib
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.store import feature_frames, snapshot_reader, value_codec
from features.store.event_times import EPOCH
from features.store.online_values import OnlineStoreUnavailable, OnlineValues, StoredRow

if TYPE_CHECKING:
    from feast import FeatureStore as FeastStore

#: Rows of the online store by view and customer.
WrittenRows = Mapping[str, Mapping[int, StoredRow]]

SETTINGS_FILE = Path(__file__).parents[1] / "feature_store.yaml"
ROW_NUMBER = "entity_place"
ONLINE_STORES = {
    **dict.fromkeys(("redis", "rediss"), "features.store.online_redis.SteadyRedisOnlineStore"),
    **dict.fromkeys(("postgresql", "postgresql+psycopg"), "features.store.online_postgres.SteadyPostgresOnlineStore"),
}


class NoSnapshot(LookupError):
    """There is no snapshot to copy into the online store."""


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """The view of a feature, and the element type of its lists as a name of numpy; None for a plain number."""

    view: str
    element_type: str | None


class FeatureStore:
    """The features of one home; see `open_store`."""

    def __init__(self, folder: Path, online: str | None) -> None:
        self.folder = folder
        self._online_config = _online_config(folder, online)
        self._values = _open_values(folder, online)
        self._feast: FeastStore | None = None
        self._feast_lock = Lock()
        self._services = _ServiceFile(folder / "feast" / "services.json")

    @property
    def feast(self) -> "FeastStore":
        """Feast's own store over the same files, opened on first use: importing Feast takes seconds."""
        with self._feast_lock:
            if self._feast is None:
                self._feast = _open_feast(self.folder, json.dumps(self._online_config))
            return self._feast

    def apply(self) -> None:
        """Register every view and service with Feast; idempotent, and works before any snapshot exists."""
        from features import definitions

        (self.folder / "feast").mkdir(parents=True, exist_ok=True)
        with _silence_feast():
            self.feast.apply(definitions.feast_objects(self.folder))
            self._services.write(self._registered_services())

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
            job = self.feast.get_historical_features(requested, self.feast.get_feature_service(service))
            result = job.to_df()
        # Some offline stores drop rows without features, and none guarantees an order.
        result = result.set_index(ROW_NUMBER).reindex(requested[ROW_NUMBER])
        columns = {name: result[name].to_numpy() for name in element_types}
        return feature_frames.build_frame(requested.drop(columns=ROW_NUMBER), columns, element_types).set_axis(
            entities.index
        )

    def snapshot_features(self, service: str, keys: Sequence[int], as_of: datetime) -> pd.DataFrame:
        """Features at the moment of a snapshot, one row per key in the order of `keys`; as `historical_features` there.

        Columns: customer_key, event_timestamp (as_of in every row), then those of the service. It reads the rows of
        that moment only, where Feast joins the whole past. Raises FileNotFoundError where there is no snapshot.
        """
        columns = self._columns(service)
        frame = pd.DataFrame({"customer_key": np.asarray(keys, dtype="int64")})
        frame["event_timestamp"] = pd.Series(pd.Timestamp(as_of).tz_convert("UTC"), frame.index).astype(
            "datetime64[us, UTC]"
        )
        if frame.empty:
            return feature_frames.build_frame(frame, {name: [] for name in columns}, self._element_types(service))
        features_by_view: dict[str, list[str]] = {}
        for name, column in columns.items():
            features_by_view.setdefault(column.view, []).append(name)
        values = snapshot_reader.read_columns(self.folder, features_by_view, keys, as_of)
        return feature_frames.build_frame(frame, values, self._element_types(service))

    def materialise(self, as_of: datetime) -> dict[str, int]:
        """Copy each view's latest rows not after as_of into the online store; returns their number by view.

        Only rows of that one timestamp are copied. Idempotent; a row never replaces a newer one, nor one pushed since.
        Raises NoSnapshot where a view has no snapshot, or none that old.
        """
        return {view.name: self._materialise(view.name, as_of) for view in self._views()}

    def online_features(self, service: str, keys: Sequence[int], written: WrittenRows | None = None) -> pd.DataFrame:
        """Features of customers in the online store, one row per key in the order of `keys`.

        Columns: customer_key, event_timestamp (of the newest view read; NaT for a customer not in the store), then
        those of the service as in historical_features. Rows in `written`, which `push_views` has just returned, are not
        read again. Raises OnlineStoreUnavailable where the store does not answer.
        """
        columns = self._columns(service)
        frame = pd.DataFrame({"customer_key": np.asarray(keys, dtype="int64")})
        rows = {
            view: self._read_rows(view, columns, keys, (written or {}).get(view, {}))
            for view in dict.fromkeys(column.view for column in columns.values())
        }
        times = [[row.event_us if row else 0 for row in view_rows] for view_rows in rows.values()]
        frame["event_timestamp"] = feature_frames.newest_timestamps(times, len(frame))
        values = {name: _decode(name, column, rows[column.view]) for name, column in columns.items()}
        return feature_frames.build_frame(frame, values, self._element_types(service))

    def latest_event_at(self, service: str, keys: Sequence[int]) -> datetime | None:
        """The newest time of the online features of any of these customers; None where they have none.

        Raises OnlineStoreUnavailable where the store does not answer.
        """
        first_by_view = {column.view: {name: column} for name, column in reversed(self._columns(service).items())}
        rows = [row for view, first in first_by_view.items() for row in self._read_rows(view, first, keys, {})]
        newest_us = max((row.event_us for row in rows if row is not None), default=0)
        return EPOCH + timedelta(microseconds=newest_us) if newest_us else None

    def latest_snapshot_at(self, service: str) -> datetime | None:
        """The latest cutoff in the snapshots of a service; None before the first nightly run."""
        views = {column.view for column in self._columns(service).values()}
        paths = [self.folder / view / "part.parquet" for view in sorted(views)]
        instants = [at for path in paths if path.exists() and (at := _latest_cutoff(path))]
        return max(instants, default=None)

    def customer_features(self, key: int) -> dict[str, Any]:
        """Every feature of one customer in the online store, by name; empty before the first nightly run."""
        rows = [self.online_features(service, [key]) for service in self._read_services()]
        feature_rows = [row.drop(columns=["customer_key", "event_timestamp"]) for row in rows]
        return {str(name): frame[name].iloc[0] for frame in feature_rows for name in frame}

    def push(self, view: str, frame: pd.DataFrame) -> None:
        """Write rows of a view to the online store.

        frame: columns customer_key, event_timestamp and all features of the view. A row that is older than the stored
        one is silently ignored.
        """
        self.push_views({view: frame})

    def push_views(self, frames: Mapping[str, pd.DataFrame]) -> WrittenRows:
        """As `push`, for the frames of several views; returns what was written, by view and customer."""
        written = {view: self._encode_rows(view, frame) for view, frame in frames.items() if len(frame)}
        self._values.write_views(written)
        return written

    def _encode_rows(self, view: str, frame: pd.DataFrame) -> dict[int, StoredRow]:
        newest = frame.assign(event_timestamp=pd.to_datetime(frame["event_timestamp"], utc=True))
        newest = newest.sort_values("event_timestamp", kind="stable").drop_duplicates("customer_key", keep="last")
        micros = newest["event_timestamp"].dt.as_unit("us").astype("int64").tolist()
        columns = {
            name: list(map(value_codec.encoder(column.element_type), newest[name].tolist()))
            for name, column in self._view_columns(view).items()
        }
        messages = zip(*columns.values(), strict=True)
        rows = (StoredRow(at, dict(zip(columns, row, strict=True))) for at, row in zip(micros, messages, strict=True))
        return dict(zip(newest["customer_key"].tolist(), rows, strict=True))

    def delete_customers(self, keys: Sequence[int]) -> None:
        """Remove these customers from the online values and snapshots of every view; idempotent."""
        if not len(keys):
            return
        from features.snapshots import snapshot

        views = {column.view for columns in self._read_services().values() for column in columns.values()}
        self._values.delete(views, keys)
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

    def _columns(self, service: str) -> dict[str, FeatureColumn]:
        """The features of a service; raises Feast's own error for one that is not registered."""
        services = self._read_services()
        if service not in services:
            self.feast.get_feature_service(service)
        return services[service]

    def _view_columns(self, view: str) -> dict[str, FeatureColumn]:
        services = self._read_services()
        columns = {name: column for each in services.values() for name, column in each.items() if column.view == view}
        if not columns:
            self.feast.get_feature_view(view)
        return columns

    def _element_types(self, service: str) -> dict[str, str | None]:
        """Element type of each feature's list, as a name of numpy; None for a plain number."""
        return {name: column.element_type for name, column in self._columns(service).items()}

    def _read_services(self) -> dict[str, dict[str, FeatureColumn]]:
        """The registered services; a home of an earlier version has no file of them, so that Feast is opened once."""
        services = self._services.read()
        if services is None and (self.folder / "feast" / "registry.db").exists():
            with _silence_feast():
                services = self._registered_services()
                self._services.write(services)
        return services or {}

    def _registered_services(self) -> dict[str, dict[str, FeatureColumn]]:
        return {
            service.name: {
                field.name: FeatureColumn(view.name, feature_frames.list_element_type(field.dtype))
                for view in service.feature_view_projections
                for field in view.features
            }
            for service in self.feast.list_feature_services()
        }

    def _read_rows(
        self, view: str, columns: Mapping[str, FeatureColumn], keys: Sequence[int], written: Mapping[int, StoredRow]
    ) -> list[StoredRow | None]:
        features = [name for name, column in columns.items() if column.view == view]
        missing = [int(key) for key in dict.fromkeys(keys) if key not in written]
        if not missing:
            return [written[key] for key in keys]
        try:
            rows = self._values.read(view, missing, features)
        except self._values.outages as error:
            raise OnlineStoreUnavailable(f"the online store does not answer: {type(error).__name__}") from None
        return [written.get(key) or rows.get(key) for key in keys]


class _ServiceFile:
    """The features of each registered service, as JSON beside Feast's registry, which only Feast can read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._modified_ns = 0
        self._services: dict[str, dict[str, FeatureColumn]] | None = None

    def read(self) -> dict[str, dict[str, FeatureColumn]] | None:
        """Columns by service; None where no file was written yet."""
        try:
            modified_ns = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        if modified_ns != self._modified_ns:
            stored = json.loads(self._path.read_bytes())
            self._services = {
                service: {name: FeatureColumn(*column) for name, column in columns.items()}
                for service, columns in stored.items()
            }
            self._modified_ns = modified_ns
        return self._services

    def write(self, services: dict[str, dict[str, FeatureColumn]]) -> None:
        """Replace the file in one step."""
        content = {service: {n: (c.view, c.element_type) for n, c in row.items()} for service, row in services.items()}
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(self._path)


def _decode(name: str, column: FeatureColumn, rows: Sequence[StoredRow | None]) -> list[Any]:
    """One feature's values, (n_rows,): numbers (NaN where missing), or lists (None where missing)."""
    decode = value_codec.decoder(column.element_type)
    return [decode(row.values.get(name, b"") if row else b"") for row in rows]


def open_store(folder: Path, online: str | None = None) -> FeatureStore:
    """Open the feature store over a folder of snapshots; Feast's own files are in folder/feast.

    `online` is the address of an online store, redis://[:PASSWORD@]HOST:PORT/DB or
    postgresql://USER:PASSWORD@HOST:PORT/DATABASE; without it, a SQLite file in the folder. Raises ValueError for any
    other address. Settings are read at the call, so two stores in one process stay separate.
    """
    home = Path(folder).absolute()
    (home / "feast").mkdir(parents=True, exist_ok=True)
    return FeatureStore(home, online)


def _open_values(folder: Path, address: str | None) -> OnlineValues:
    """The values of the online store at an address, or in the SQLite file of the folder where there is none."""
    if address is None:
        from features.store.sqlite_values import SqliteValues

        return SqliteValues(folder / "feast" / "online.db")
    if urlsplit(address).scheme.startswith("redis"):
        from features.store.redis_values import RedisValues

        return RedisValues(address)
    from features.store.postgres_values import PostgresValues

    return PostgresValues(_driver_url(address))


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
    return {"type": store_type, "url": _driver_url(address)}


def _driver_url(address: str) -> str:
    return address.replace("postgresql+psycopg://", "postgresql://", 1)


def _open_feast(folder: Path, online: str) -> "FeastStore":
    os.environ.setdefault("FEAST_USAGE", "False")
    with _silence_feast(), _without_torch(), _without_type_checks():
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


def _latest_cutoff(path: Path) -> datetime | None:
    """The latest event_timestamp of a snapshot, from the statistics of its row groups; None for an empty one."""
    metadata = pq.read_metadata(path)
    position = metadata.schema.names.index("event_timestamp")
    groups = (metadata.row_group(number).column(position).statistics for number in range(metadata.num_row_groups))
    return max((group.max for group in groups if group is not None and group.has_min_max), default=None)


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
