"""Access: who may ask the shop for what, by keys that are shown once and kept only as a digest."""

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime

import sqlalchemy as sa

from customers import database
from customers.instants import micros
from customers.schema import api_keys
from customers.shop import Shop, ShopError

ROLES = ("admin", "agent", "campaign", "analyst", "till")


def add(shop: Shop, role: str) -> str:
    """A new key for a role. It cannot be shown again: the shop keeps only its digest."""
    if role not in ROLES:
        raise ShopError(f"unknown role {role!r}; roles are {', '.join(ROLES)}")
    prefix, key = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = f"rg_{prefix}_{key}"
    with database.writing(shop) as connection:
        connection.execute(
            api_keys.insert().values(prefix=prefix, digest=_digest(key), role=role, made_at=micros(datetime.now(UTC)))
        )
    return key


def role_of(shop: Shop, key: str) -> str | None:
    """The role of a key; None for a key that was never given out."""
    prefix = prefix_of(key)
    found = _found(shop, prefix) if prefix else None
    if found is None or not hmac.compare_digest(found.digest, _digest(key)):
        return None
    return str(found.role)


def prefix_of(key: str) -> str | None:
    """The open part of a key, which names it without opening anything; None for what cannot be a key."""
    form = re.fullmatch(r"rg_([0-9a-f]{12})_.+", key)
    return form[1] if form else None


def role_named(shop: Shop, prefix: str) -> str | None:
    """The role of the key that this prefix names, for somebody who has shown the whole key before."""
    found = _found(shop, prefix)
    return str(found.role) if found else None


def _found(shop: Shop, prefix: str) -> sa.Row | None:
    query = sa.select(api_keys.c.digest, api_keys.c.role).where(api_keys.c.prefix == prefix)
    with database.reading(shop) as connection:
        return connection.execute(query).first()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
