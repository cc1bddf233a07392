"""Online, in Redis: the drawer at the till of a shop with several servers; it promises what features/online.py does."""

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

from features.online import Written, micros

STEADY: Literal["features.online_redis.SteadyRedisOnlineStore"] = "features.online_redis.SteadyRedisOnlineStore"
#: Compares and writes in one go, so that two writers cannot slip between each other. Its arguments are fields and
#: values in turns, the first of them the time in microseconds, which a double holds exactly.
WRITE = """
local kept = redis.call('hget', KEYS[1], ARGV[1])
if kept and tonumber(kept) > tonumber(ARGV[2]) then return 0 end
redis.call('hset', KEYS[1], unpack(ARGV))
return 1
"""
ROWS_AT_ONCE = 1_000


class SteadyRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """Settings of the store below: its address, redis://[:PASSWORD@]HOST:PORT/DB (rediss:// with TLS)."""

    type: Literal["features.online_redis.SteadyRedisOnlineStore"] = STEADY  # type: ignore[assignment]
    url: str


class SteadyRedisOnlineStore(RedisOnlineStore):
    """Feast's Redis store, with its guard closed.

    An older value never overwrites a newer one, also of two writers at once; an equal time is written (Feast skips
    it), so that a rerun heals. The keys are Feast's own, and one field more for each view.
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
        data: list[Written],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write each row unless what is there is newer."""
        client = self._get_client(config.online_store)
        write = client.register_script(WRITE)
        keys = self._generate_redis_keys_for_entities(config, [key for key, *_ in data])
        for start in range(0, len(data), ROWS_AT_ONCE):
            with client.pipeline(transaction=False) as pipe:
                some = slice(start, start + ROWS_AT_ONCE)
                for key, (_, values, happened, _) in zip(keys[some], data[some], strict=True):
                    write(keys=[key], args=_fields(table.name, values, happened), client=pipe)
                pipe.execute()
        if progress:
            progress(len(data))

    def forget(self, config: RepoConfig, tables: Sequence[FeatureView], keys: Sequence[EntityKey]) -> None:
        """Remove all that is kept of these customers; every view of one lies under one key."""
        client = self._get_client(config.online_store)
        places = self._generate_redis_keys_for_entities(config, list(keys))
        for start in range(0, len(places), ROWS_AT_ONCE):
            client.delete(*places[start : start + ROWS_AT_ONCE])


def _fields(view: str, values: dict[str, Any], happened: datetime) -> list[str | bytes | int]:
    time = Timestamp()
    time.FromDatetime(utils.make_tzaware(happened))
    fields: list[str | bytes | int] = [f"_us:{view}", micros(happened), f"_ts:{view}", time.SerializeToString()]
    for feature, value in values.items():
        fields += [_mmh3(f"{view}:{feature}"), value.SerializeToString()]
    return fields
