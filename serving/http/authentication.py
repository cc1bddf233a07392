"""Authentication: the role of a request, by its API key or, for a page, by its session cookie.

A worker remembers the roles of the keys that it has verified until something is committed to the database: a revoked
key is refused from the next request on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field

from anyio.to_thread import run_sync
from starlette.datastructures import Headers

from customers.database import direct_reads
from customers.security import api_keys
from customers.shop.settings import Shop
from serving import runtime
from serving.http import session_cookie
from serving.http.problems import Problem
from serving.http.request_context import RequestContext

#: So many keys are remembered.
MAX_KEYS = 10_000


@dataclass
class _VerifiedKeys:
    """The roles of keys by their digest, as they are at one version of the database."""

    version: Hashable = None
    roles: dict[bytes, str] = field(default_factory=dict)


_verified_by_database: dict[str, _VerifiedKeys] = {}


async def authenticate(context: RequestContext, headers: Headers) -> str:
    """The role of the API key in the request, or for a page that of the session cookie.

    A cookie gives access to pages only: browsers send it by themselves, so it must not authorize API requests. Raises
    Problem (401) without a valid one.
    """
    shop = runtime.get_runtime().shop
    if context.route is not None and context.route.is_page:
        role = await run_sync(session_cookie.read_role, shop, headers.get("cookie", ""))
    else:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else ""
        role = await _role_for_key(context, shop, key) if key else None
    if role is None:
        raise Problem(401)
    return role


async def _role_for_key(context: RequestContext, shop: Shop, key: str) -> str | None:
    context.database_version = version = direct_reads.get_reader(shop).read_version()
    verified = _verified_by_database.setdefault(shop.database_url, _VerifiedKeys())
    if verified.version != version or len(verified.roles) > MAX_KEYS:
        verified.version, verified.roles = version, {}
    roles, digest = verified.roles, hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    role = roles.get(digest)
    if role is None:
        role = await run_sync(api_keys.role_for_key, shop, key)
        if role is not None:
            roles[digest] = role  # the roles of the version before: a commit since then has replaced the dict
    return role
