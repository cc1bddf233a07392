"""Online store in Redis, for a shop with several servers; same guarantees as features.store.online_sqlite."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

from feast import utils
from feast.feature_view import FeatureView
from feast.infra.online_stores.helpers import _mmh3
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.repo_config import RepoConfig
from google.protobuf.timestamp_pb2 import Timestamp
from redis import Redis, RedisCluster

from features.store.online_keys import WrittenRow, to_micros

STEADY: Literal["features.store.online_redis.SteadyRedisOnlineStore"] = (
    "features.store.online_redis.SteadyRedisOnlineStore"
)
#: Compares and writes in one step, so that no other writer comes in between. ARGV are alternating fields and values,
#: the first of them the time in microseconds, which a double holds exactly.
WRITE_SCRIPT = """
local stored = redis.call('hget', KEYS[1], ARGV[1])
if stored and tonumber(stored) > tonumber(ARGV[2]) then return 0 end
redis.call('hset', KEYS[1], unpack(ARGV))
return 1
"""
ROWS_PER_BATCH = 1_000


class SteadyRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """Settings of the store: its address, redis://[:PASSWORD@]HOST:PORT/DB (rediss:// with TLS)."""

    type: Literal["features.store.online_redis.SteadyRedisOnlineStore"] = STEADY  # type: ignore[assignment]
    url: str


class SteadyRedisOnlineStore(RedisOnlineStore):
    """Feast's Redis store with one correction.

    An older value never overwrites a newer one, even with two writers at once; an equal time is written (Feast skips
    it), so that a rerun repairs. The keys are those of Feast, and one more field per view.
    """

    def _get_client(self, online_store_config: RedisOnlineStoreConfig) -> Redis | RedisCluster:
        if self._client is None:
            assert isinstance(online_store_config, SteadyRedisOnlineStoreConfig)
            self._client = Redis.from_url(
                online_store_config.url, socket_connect_timeout=5, socket_timeout=30, health_check_interval=30
            )
        return self._client

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[WrittenRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write each row unless the stored one is newer."""
        client = self._get_client(config.online_store)
        write = client.register_script(WRITE_SCRIPT)
        keys = self._generate_redis_keys_for_entities(config, [key for key, *_ in data])
        for start in range(0, len(data), ROWS_PER_BATCH):
            with client.pipeline(transaction=False) as pipe:
                batch = slice(start, start + ROWS_PER_BATCH)
                for key, (_, values, event_at, _) in zip(keys[batch], data[batch], strict=True):
                    write(keys=[key], args=_hash_fields(table.name, values, event_at), client=pipe)
                pipe.execute()
        if progress:
            progress(len(data))

    def delete_customers(self, config: RepoConfig, tables: Sequence[FeatureView], keys: Sequence[EntityKey]) -> None:
        """Delete every stored value of these customers; all views of a customer are under one key."""
        client = self._get_client(config.online_store)
        redis_keys = self._generate_redis_keys_for_entities(config, list(keys))
        for start in range(0, len(redis_keys), ROWS_PER_BATCH):
            client.delete(*redis_keys[start : start + ROWS_PER_BATCH])


def _hash_fields(view: str, values: dict[str, Any], event_at: datetime) -> list[str | bytes | int]:
    time = Timestamp()
    time.FromDatetime(utils.make_tzaware(event_at))
    fields: list[str | bytes | int] = [f"_us:{view}", to_micros(event_at), f"_ts:{view}", time.SerializeToString()]
    for feature, value in values.items():
        fields += [_mmh3(f"{view}:{feature}"), value.SerializeToString()]
    return fields
