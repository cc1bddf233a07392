"""Online: the drawer at the till, where the newest numbers of each customer lie ready."""

import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from feast.feature_view import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STEADY: Literal["features.online.SteadySqliteOnlineStore"] = "features.online.SteadySqliteOnlineStore"
KEYS_AT_ONCE = 10_000  # SQLite takes a limited number of parameters
Written = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Read = tuple[datetime | None, dict[str, Value] | None]


class SteadySqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """Settings of the store below: the path of its file."""

    type: Literal["features.online.SteadySqliteOnlineStore"] = STEADY  # type: ignore[assignment]


class SteadySqliteOnlineStore(SqliteOnlineStore):
    """Feast's SQLite store, with three of its habits cured in the file's own statements.

    An older value never overwrites a newer one, whoever writes it and however late. Times are kept to the
    microsecond in UTC (Feast keeps seconds, by way of the machine's own zone). Readers never wait for a
    writer (WAL). The tables are Feast's own.
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
        data: list[Written],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write each row unless what is there is newer; equal times are written, so that a rerun heals."""
        con = self._get_conn(config)
        with con:
            con.executemany(
                f"insert into {_name(config, table)} (entity_key, feature_name, value, event_ts, created_ts) "
                "values (?, ?, ?, ?, ?) on conflict (entity_key, feature_name) do update set "
                "value = excluded.value, event_ts = excluded.event_ts, created_ts = excluded.created_ts "
                "where excluded.event_ts >= event_ts",
                _cells(config, data),
            )
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Read]:
        """The values of each customer, in the order asked; (None, None) for one not known."""
        asked = [place(config, key) for key in entity_keys]
        found: dict[bytes, Read] = {}
        for start in range(0, len(asked), KEYS_AT_ONCE):
            self._collect(config, table, asked[start : start + KEYS_AT_ONCE], found)
        return [found.get(key, (None, None)) for key in asked]

    def forget(self, config: RepoConfig, tables: Sequence[FeatureView], keys: Sequence[EntityKey]) -> None:
        """Remove all that is kept of these customers, from the file's free pages too."""
        places = [(place(config, key),) for key in keys]
        con = self._get_conn(config)
        con.execute("pragma secure_delete = on")
        with con:
            for table in tables:
                con.executemany(f"delete from {_name(config, table)} where entity_key = ?", places)
        con.execute("pragma wal_checkpoint(truncate)")

    def _collect(
        self, config: RepoConfig, table: FeatureView, asked: Sequence[bytes], found: dict[bytes, Read]
    ) -> None:
        rows = self._get_conn(config).execute(
            # A cast keeps Feast's own reading of the column's declared type out of it.
            f"select entity_key, feature_name, value, cast(event_ts as integer) from {_name(config, table)} "
            f"where entity_key in ({','.join('?' * len(asked))})",
            asked,
        )
        for key, feature, value, micros in rows:
            _, values = found.setdefault(key, (EPOCH + timedelta(microseconds=micros), {}))
            assert values is not None
            values[feature] = Value.FromString(value)


class WholeRegistryStore(FileRegistryStore):
    """Feast's registry file, replaced in one piece: a server never reads the first half of it."""

    def _write_registry(self, registry_proto: Registry) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        beside = self._filepath.with_name(f".{self._filepath.name}.{registry_proto.version_id}")
        beside.write_bytes(registry_proto.SerializeToString())
        beside.replace(self._filepath)


def customers(keys: Sequence[int]) -> list[EntityKey]:
    """Customers as Feast names them."""
    return [EntityKey(join_keys=["customer_key"], entity_values=[Value(int64_val=int(key))]) for key in keys]


def _cells(config: RepoConfig, written: list[Written]) -> Iterator[tuple[bytes, str, bytes, int, int | None]]:
    for key, values, happened, created in written:
        where, at = place(config, key), micros(happened)
        made = None if created is None else micros(created)
        for feature, value in values.items():
            yield where, feature, value.SerializeToString(), at, made


def place(config: RepoConfig, key: EntityKey) -> bytes:
    """Where a customer's values are kept."""
    return serialize_entity_key(key, config.entity_key_serialization_version)


def micros(moment: datetime) -> int:
    """Microseconds since 1970; a time without a zone is Feast's, and UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


def _name(config: RepoConfig, table: FeatureView) -> str:
    return f'"{config.project}_{table.name}"'
