"""Online store in PostgreSQL, for a shop with several servers; same guarantees as features.store.online_sqlite."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import psycopg
from feast.feature_view import FeatureView
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.postgres_online_store.postgres import (
    PostgreSQLOnlineStore,
    PostgreSQLOnlineStoreConfig,
)
from feast.repo_config import RepoConfig
from feast.utils import make_tzaware
from psycopg import sql

from features.store import postgres_values
from features.store.feast_rows import WrittenRow, entity_key_bytes

STEADY: Literal["features.store.online_postgres.SteadyPostgresOnlineStore"] = (
    "features.store.online_postgres.SteadyPostgresOnlineStore"
)


class SteadyPostgresOnlineStoreConfig(PostgreSQLOnlineStoreConfig):
    """Settings of the store: its address, postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=..."""

    type: Literal["features.store.online_postgres.SteadyPostgresOnlineStore"] = STEADY  # type: ignore[assignment]
    url: str
    host: str = ""
    database: str = ""
    user: str = ""
    password: str = ""


class SteadyPostgresOnlineStore(PostgreSQLOnlineStore):
    """Feast's PostgreSQL store with three corrections.

    An older value never overwrites a newer one. Times are instants, whatever the server's time zone. A lost connection
    is reopened, and TLS is as in the address (by libpq's default, used where the server has it). The tables are those
    of Feast.
    """

    @contextmanager
    def _get_conn(self, config: RepoConfig, autocommit: bool = False) -> Iterator[psycopg.Connection]:
        if self._conn is None or self._conn.closed:
            self._conn = psycopg.connect(config.online_store.url, connect_timeout=10)
        try:
            self._conn.set_autocommit(autocommit)
            yield self._conn
        except psycopg.OperationalError:
            self._conn.close()
            raise
        except Exception:
            self._conn.rollback()
            raise

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[WrittenRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write each row unless the stored one is newer; equal times are written, so that a rerun repairs."""
        upsert = postgres_values.UPSERT.format(table=_table_id(config, table))
        with self._get_conn(config) as con:
            con.execute(upsert, _to_columns(config, data))
            con.commit()
        if progress:
            progress(len(data))


def _to_columns(config: RepoConfig, data: list[WrittenRow]) -> list[list[Any]]:
    """Cells of the rows by column; of two rows of one customer the newest, the later of equal ones."""
    newest: dict[bytes, WrittenRow] = {}
    for row in data:
        key_bytes = entity_key_bytes(config, row[0])
        if key_bytes not in newest or make_tzaware(newest[key_bytes][2]) <= make_tzaware(row[2]):
            newest[key_bytes] = row
    cells = [
        (key_bytes, feature, value.SerializeToString(), make_tzaware(event_at), created_at and make_tzaware(created_at))
        for key_bytes, (_, values, event_at, created_at) in newest.items()
        for feature, value in values.items()
    ]
    return postgres_values.to_columns(cells)


def _table_id(config: RepoConfig, table: FeatureView) -> sql.Identifier:
    return sql.Identifier(compute_table_id(config.project, table, False))
