"""Online store in SQLite: the newest features of each customer."""

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from feast.feature_view import FeatureView
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

from features.store import event_times, sqlite_values
from features.store.feast_rows import WrittenRow, entity_key_bytes

STEADY: Literal["features.store.online_sqlite.SteadySqliteOnlineStore"] = (
    "features.store.online_sqlite.SteadySqliteOnlineStore"
)
ReadRow = tuple[datetime | None, dict[str, Value] | None]


class SteadySqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """Settings of the store: the path of its file."""

    type: Literal["features.store.online_sqlite.SteadySqliteOnlineStore"] = STEADY  # type: ignore[assignment]


class SteadySqliteOnlineStore(SqliteOnlineStore):
    """Feast's SQLite store with three corrections.

    An older value never overwrites a newer one, in whatever order they are written. Times are stored to the microsecond
    in UTC (Feast stores seconds, converted through the machine's time zone). Readers never wait for a writer (WAL). The
    tables are those of Feast.
    """

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        opened = self._conn is None
        con = super()._get_conn(config)
        if opened:
            sqlite_values.configure(con)
        return con

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[WrittenRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write each row unless the stored one is newer; equal times are written, so that a rerun repairs."""
        sqlite_values.upsert_cells(self._get_conn(config), _table_name(config, table), _to_cells(config, data))
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[ReadRow]:
        """Values of each customer, in the order of entity_keys; (None, None) for one not in the store."""
        key_bytes = [entity_key_bytes(config, key) for key in entity_keys]
        rows_by_key: dict[bytes, ReadRow] = {}
        cells = sqlite_values.select_cells(self._get_conn(config), _table_name(config, table), key_bytes)
        for key, feature, value, micros in cells:
            _, values = rows_by_key.setdefault(key, (event_times.EPOCH + timedelta(microseconds=micros), {}))
            assert values is not None
            values[feature] = Value.FromString(value)
        return [rows_by_key.get(key, (None, None)) for key in key_bytes]


class WholeRegistryStore(FileRegistryStore):
    """Feast's registry file, replaced in one step, so that a server never reads half of it."""

    def _write_registry(self, registry_proto: Registry) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        partial = self._filepath.with_name(f".{self._filepath.name}.{registry_proto.version_id}")
        partial.write_bytes(registry_proto.SerializeToString())
        partial.replace(self._filepath)


def _to_cells(config: RepoConfig, rows: list[WrittenRow]) -> Iterator[sqlite_values.Cell]:
    for key, values, event_at, created_at in rows:
        key_bytes, event_micros = entity_key_bytes(config, key), event_times.to_micros(event_at)
        created_micros = None if created_at is None else event_times.to_micros(created_at)
        for feature, value in values.items():
            yield key_bytes, feature, value.SerializeToString(), event_micros, created_micros


def _table_name(config: RepoConfig, table: FeatureView) -> str:
    return sqlite_values.table_name(table.name, config.project)
