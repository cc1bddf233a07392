"""Online store in Redis, for a shop with several servers; same guarantees as features.store.online_sqlite."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from feast.feature_view import FeatureView
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.repo_config import RepoConfig
from redis import Redis, RedisCluster

from features.store import redis_values
from features.store.event_times import to_micros
from features.store.feast_rows import WrittenRow

STEADY: Literal["features.store.online_redis.SteadyRedisOnlineStore"] = (
    "features.store.online_redis.SteadyRedisOnlineStore"
)


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
            self._client = redis_values.open_client(online_store_config.url)
        return self._client

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[WrittenRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write each row unless the stored one is newer."""
        keys = self._generate_redis_keys_for_entities(config, [key for key, *_ in data])
        fields = [_hash_fields(table.name, values, event_at) for _, values, event_at, _ in data]
        redis_values.write_hashes(self._get_client(config.online_store), list(zip(keys, fields, strict=True)))
        if progress:
            progress(len(data))


def _hash_fields(view: str, values: dict[str, Any], event_at: datetime) -> list[str | bytes | int]:
    messages = {feature: value.SerializeToString() for feature, value in values.items()}
    return redis_values.hash_fields(view, to_micros(event_at), messages)
