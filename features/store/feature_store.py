"""The Feast feature store: training reads features as of the past from it, serving reads the present ones.

Feast itself is imported only where it is needed: to register and to read the past. Present features are written, read
and deleted in the online store directly, in the tables and messages of Feast.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.store import feast_store, feature_frames, snapshot_reader, value_codec
from features.store.event_times import EPOCH
from features.store.loss_detector import LossDetector
from features.store.online_values import OnlineStoreUnavailable, OnlineValues, StoredRow
from features.store.service_file import FeatureColumn, ServiceFile

if TYPE_CHECKING:
    from feast import FeatureStore as FeastStore

#: Rows of the online store by view and customer.
WrittenRows = Mapping[str, Mapping[int, StoredRow]]

ROW_NUMBER = "entity_place"


class FeatureStore:
    """The features of one home; see `open_store`."""

    def __init__(self, folder: Path, online: str | None) -> None:
        self.folder = folder
        self._online_config = feast_store.online_config(folder, online)
        self._values = _open_values(folder, online)
        self._feast: FeastStore | None = None
        self._feast_lock = Lock()
        self._services = ServiceFile(folder / "feast" / "services.json")
        self._loss_detector = LossDetector(folder, self._view_names, self._count_missing)

    @property
    def feast(self) -> "FeastStore":
        """Feast's own store over the same files, opened on first use: importing Feast takes seconds."""
        with self._feast_lock:
            if self._feast is None:
                self._feast = feast_store.open_feast(self.folder, json.dumps(self._online_config))
            return self._feast

    def apply(self) -> None:
        """Register every view and service with Feast; idempotent, and works before any snapshot exists."""
        from features import definitions

        (self.folder / "feast").mkdir(parents=True, exist_ok=True)
        with feast_store.silence_feast():
            self.feast.apply(definitions.feast_objects(self.folder))
            self._services.write(self._registered_services())

    def read_registry(self) -> None:
        """Read from a registry that homes share what another one has registered; a registry of this home is written."""
        if not feast_store.is_registry_shared():
            return self.apply()
        (self.folder / "feast").mkdir(parents=True, exist_ok=True)
        with feast_store.silence_feast():
            return self._services.write(self._registered_services())

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
        with feast_store.silence_feast():
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

    def materialise(self, as_of: datetime, *, without: Collection[int] = ()) -> dict[str, int]:
        """Copy each view's latest rows not after as_of into the online store; returns their number by view.

        Customers in `without` are left out. Only rows of that one timestamp are copied. Idempotent; a row never
        replaces a newer one, nor one pushed since.
        Raises NoSnapshot where a view has no snapshot, or none that old.
        """
        return {view: self._materialise(view, as_of, without) for view in self._view_names()}

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

    def has_lost_values(self) -> bool:
        """Whether the online store lacks what a nightly run wrote: of some customers of each view, many are not there.

        So it is after a restart without a copy of its own, and until it has been filled again. It is looked at only now
        and then: see `loss_detector`. Raises OnlineStoreUnavailable where the store does not answer.
        """
        return self._loss_detector.check()

    def _count_missing(self, view: str, keys: Sequence[int]) -> int:
        """How many of these customers have no row of a view in the online store."""
        first = dict([next(iter(self._view_columns(view).items()))])
        return self._read_rows(view, first, keys, {}).count(None)

    def _view_names(self) -> list[str]:
        return sorted({column.view for columns in self._read_services().values() for column in columns.values()})

    def latest_snapshot_at(self, service: str) -> datetime | None:
        """The latest cutoff in the snapshots of a service; None before the first nightly run."""
        views = {column.view for column in self._columns(service).values()}
        paths = [self.folder / view / "part.parquet" for view in sorted(views)]
        instants = [at for path in paths if path.exists() and (at := snapshot_reader.latest_cutoff(path))]
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

        # First of the snapshots: a customer who is only there would count as lost.
        for path in sorted(self.folder.glob("*/part.parquet")):
            _delete_rows(path, keys)
        self._values.delete(self._view_names(), keys)
        snapshot.remove_partial_files(self.folder)

    def _materialise(self, view: str, as_of: datetime, without: Collection[int] = ()) -> int:
        """Feast's own `materialize` holds the lists of all customers at once, and takes ten times as long."""
        path = self.folder / view / "part.parquet"
        latest_at, _ = snapshot_reader.latest_rows(path, as_of)
        if latest_at is None:
            return 0
        rows = 0
        for frame in snapshot_reader.iter_rows_at(path, latest_at, ["customer_key", *self._view_columns(view)]):
            copied = frame[~frame["customer_key"].isin(without)]
            self.push(view, copied.assign(event_timestamp=latest_at))
            rows += len(copied)
        if self._feast is not None:
            self._note_materialisation(view, latest_at)
        return rows

    def _note_materialisation(self, view: str, at: datetime) -> None:
        """Note in Feast's registry what Feast's own `materialize` would note; a server does not open it for that."""
        with feast_store.silence_feast():
            feature_view = self.feast.get_feature_view(view)
            self.feast.registry.apply_materialization(feature_view, self.feast.project, at, at)

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
            with feast_store.silence_feast():
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
        # Keys are positive: a negative one stands for a customer whom nobody knows.
        missing = [int(key) for key in dict.fromkeys(keys) if key not in written and key >= 0]
        if not missing:
            return [written.get(key) for key in keys]
        try:
            rows = self._values.read(view, missing, features)
        except self._values.outages as error:
            raise OnlineStoreUnavailable(f"the online store does not answer: {type(error).__name__}") from None
        return [written.get(key) or rows.get(key) for key in keys]


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

    return PostgresValues(feast_store.driver_url(address))


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
