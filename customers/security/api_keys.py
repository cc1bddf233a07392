"""API keys and their roles; a key is shown once and stored only as a digest."""

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime

import sqlalchemy as sa

from customers.database import engine
from customers.database.schema import api_keys
from customers.shop.errors import ShopError
from customers.shop.settings import Shop
from customers.shop.timestamps import to_micros

ROLES = ("admin", "agent", "campaign", "analyst", "till")


def create_key(shop: Shop, role: str) -> str:
    """Create a key for a role; it cannot be shown again, since only its digest is stored.

    Raises ShopError for an unknown role.
    """
    if role not in ROLES:
        raise ShopError(f"unknown role {role!r}; roles are {', '.join(ROLES)}")
    prefix, key = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = f"rg_{prefix}_{key}"
    with engine.write_transaction(shop) as connection:
        connection.execute(
            api_keys.insert().values(
                prefix=prefix, digest=digest_key(key), role=role, made_at=to_micros(datetime.now(UTC))
            )
        )
    return key


def role_for_key(shop: Shop, key: str) -> str | None:
    """The role of a key; None for a key that was never issued."""
    prefix = key_prefix(key)
    row = _select_key(shop, prefix) if prefix else None
    if row is None or not hmac.compare_digest(row.digest, digest_key(key)):
        return None
    return str(row.role)


def key_prefix(key: str) -> str | None:
    """The public prefix of a key, which identifies it without granting access; None for text that cannot be a key."""
    match = re.fullmatch(r"rg_([0-9a-f]{12})_.+", key)
    return match[1] if match else None


def role_for_prefix(shop: Shop, prefix: str) -> str | None:
    """The role of the key with this prefix, for a caller whose whole key was verified before; None for none."""
    row = _select_key(shop, prefix)
    return str(row.role) if row else None


def load_roles(shop: Shop) -> dict[bytes, str]:
    """The role of every key that is valid now, by its digest (see `digest_key`)."""
    with engine.read_transaction(shop) as connection:
        return dict(connection.execute(sa.select(api_keys.c.digest, api_keys.c.role)).tuples().all())


def _select_key(shop: Shop, prefix: str) -> sa.Row | None:
    query = sa.select(api_keys.c.digest, api_keys.c.role).where(api_keys.c.prefix == prefix)
    with engine.read_transaction(shop) as connection:
        return connection.execute(query).first()


def digest_key(key: str) -> bytes:
    """The digest of a key, which is all that is stored of it."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
