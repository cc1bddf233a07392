"""Keys and timestamps that all online stores share."""

from datetime import UTC, datetime, timedelta

from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WrittenRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


def entity_key_bytes(config: RepoConfig, key: EntityKey) -> bytes:
    """A customer's key in the online stores."""
    return serialize_entity_key(key, config.entity_key_serialization_version)


def to_micros(at: datetime) -> int:
    """Microseconds since 1970; a time without a zone comes from Feast and is in UTC."""
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)
