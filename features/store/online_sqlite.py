"""Online store in SQLite: the newest features of each customer."""

import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from feast.feature_view import FeatureView
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

from features.store import online_keys
from features.store.online_keys import WrittenRow

STEADY: Literal["features.store.online_sqlite.SteadySqliteOnlineStore"] = (
    "features.store.online_sqlite.SteadySqliteOnlineStore"
)
MAX_KEYS_PER_QUERY = 10_000  # SQLite limits the number of parameters
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
            con.execute("pragma busy_timeout = 30000")
            con.execute("pragma journal_mode = wal")
        return con

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[WrittenRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write each row unless the stored one is newer; equal times are written, so that a rerun repairs."""
        con = self._get_conn(config)
        with con:
            con.executemany(
                f"insert into {_table_name(config, table)} (entity_key, feature_name, value, event_ts, created_ts) "
                "values (?, ?, ?, ?, ?) on conflict (entity_key, feature_name) do update set "
                "value = excluded.value, event_ts = excluded.event_ts, created_ts = excluded.created_ts "
                "where excluded.event_ts >= event_ts",
                _to_cells(config, data),
            )
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
        key_bytes = [online_keys.entity_key_bytes(config, key) for key in entity_keys]
        rows_by_key: dict[bytes, ReadRow] = {}
        for start in range(0, len(key_bytes), MAX_KEYS_PER_QUERY):
            self._collect(config, table, key_bytes[start : start + MAX_KEYS_PER_QUERY], rows_by_key)
        return [rows_by_key.get(key, (None, None)) for key in key_bytes]

    def delete_customers(self, config: RepoConfig, tables: Sequence[FeatureView], keys: Sequence[EntityKey]) -> None:
        """Delete every stored value of these customers, from the file's free pages too."""
        key_bytes = [(online_keys.entity_key_bytes(config, key),) for key in keys]
        con = self._get_conn(config)
        con.execute("pragma secure_delete = on")
        with con:
            for table in tables:
                con.executemany(f"delete from {_table_name(config, table)} where entity_key = ?", key_bytes)
        con.execute("pragma wal_checkpoint(truncate)")

    def _collect(
        self, config: RepoConfig, table: FeatureView, key_bytes: Sequence[bytes], rows_by_key: dict[bytes, ReadRow]
    ) -> None:
        rows = self._get_conn(config).execute(
            # The cast avoids Feast's own conversion of the column's declared type.
            f"select entity_key, feature_name, value, cast(event_ts as integer) from {_table_name(config, table)} "
            f"where entity_key in ({','.join('?' * len(key_bytes))})",
            key_bytes,
        )
        for key, feature, value, micros in rows:
            _, values = rows_by_key.setdefault(key, (online_keys.EPOCH + timedelta(microseconds=micros), {}))
            assert values is not None
            values[feature] = Value.FromString(value)


class WholeRegistryStore(FileRegistryStore):
    """Feast's registry file, replaced in one step, so that a server never reads half of it."""

    def _write_registry(self, registry_proto: Registry) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        partial = self._filepath.with_name(f".{self._filepath.name}.{registry_proto.version_id}")
        partial.write_bytes(registry_proto.SerializeToString())
        partial.replace(self._filepath)


def to_entity_keys(keys: Sequence[int]) -> list[EntityKey]:
    """Customers as entity keys of Feast."""
    return [EntityKey(join_keys=["customer_key"], entity_values=[Value(int64_val=int(key))]) for key in keys]


def _to_cells(config: RepoConfig, rows: list[WrittenRow]) -> Iterator[tuple[bytes, str, bytes, int, int | None]]:
    for key, values, event_at, created_at in rows:
        key_bytes, event_micros = online_keys.entity_key_bytes(config, key), online_keys.to_micros(event_at)
        created_micros = None if created_at is None else online_keys.to_micros(created_at)
        for feature, value in values.items():
            yield key_bytes, feature, value.SerializeToString(), event_micros, created_micros


def _table_name(config: RepoConfig, table: FeatureView) -> str:
    return f'"{config.project}_{table.name}"'
