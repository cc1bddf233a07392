"""Rows as Feast hands them to an online store."""

from datetime import datetime

from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

#: Entity key, values by feature, event time and creation time.
WrittenRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


def entity_key_bytes(config: RepoConfig, key: EntityKey) -> bytes:
    """A customer's key in the online stores."""
    return serialize_entity_key(key, config.entity_key_serialization_version)
