"""Authentication: the role of a request, by its API key or, for a page, by its session cookie.

A worker remembers the roles of the keys that it has verified until something is committed to the database: a revoked
key is refused from the next request on.

While the database does not answer, a worker accepts, for questions that it answers from memory, the keys that it has
verified itself and that were valid when it last read all keys, at most MAX_AGE_SECONDS ago. It reads them again after
every commit, about once a second: a key that was revoked just before the outage may be accepted until its end.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from anyio.to_thread import run_sync
from starlette.datastructures import Headers

from customers.database import direct_reads
from customers.security import api_keys
from customers.shop.errors import ShopUnavailable
from customers.shop.settings import Shop
from serving import runtime
from serving.http import session_cookie
from serving.http.problems import Problem
from serving.http.request_context import RequestContext

#: So many keys are remembered.
MAX_KEYS = 10_000
#: So long after the keys were last read none is accepted any more: nobody can revoke one during an outage.
MAX_AGE_SECONDS = 12 * 3600.0


@dataclass
class _VerifiedKeys:
    """The roles of verified keys by their digest, as they are at one version of the database.

    `last_roles` also has those that were verified at an earlier version, as of `confirmed_at` by the monotonic clock.
    """

    version: Hashable = None
    roles: dict[bytes, str] = field(default_factory=dict)
    last_roles: dict[bytes, str] = field(default_factory=dict)
    confirmed_at: float = float("-inf")

    def add(self, roles: dict[bytes, str], digest: bytes, role: str) -> None:
        """Remember a key that was verified just now; `roles` are those of the version at which it was."""
        roles[digest] = role
        if len(self.last_roles) < MAX_KEYS:
            self.last_roles[digest] = role


_verified_by_database: dict[str, _VerifiedKeys] = {}


def confirm_keys(shop: Shop, valid_roles: dict[bytes, str]) -> None:
    """Forget the remembered keys that are no longer valid: `valid_roles` has the role of each key that is, by digest.

    To be called again and again, with the keys as they are now, also where nothing has changed.
    """
    verified = _get_verified(shop)
    remembered = list({**verified.last_roles, **verified.roles})
    verified.last_roles = {digest: valid_roles[digest] for digest in remembered if digest in valid_roles}
    verified.confirmed_at = time.monotonic()


def _get_verified(shop: Shop) -> _VerifiedKeys:
    return _verified_by_database.setdefault(shop.database_url, _VerifiedKeys())


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
    verified, digest = _get_verified(shop), api_keys.digest_key(key)
    try:
        context.database_version = version = direct_reads.get_reader(shop).read_version()
        if verified.version != version or len(verified.roles) > MAX_KEYS:
            verified.version, verified.roles = version, {}
        roles = verified.roles
        role = roles.get(digest)
        if role is None:
            role = await run_sync(api_keys.role_for_key, shop, key)
            if role is None:
                verified.last_roles.pop(digest, None)
            else:
                verified.add(roles, digest, role)  # roles: a commit since then has replaced those of the version
    except ShopUnavailable:
        context.is_database_away = True
        role = _last_role(verified, digest) if context.route and context.route.answers_without_database else None
        if role is None:
            raise
    return role


def _last_role(verified: _VerifiedKeys, digest: bytes) -> str | None:
    is_recent = time.monotonic() - verified.confirmed_at <= MAX_AGE_SECONDS
    return verified.last_roles.get(digest) if is_recent else None
