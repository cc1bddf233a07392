"""Session cookie of the console: after a sign-in with an API key, the browser stays signed in for 12 hours.

The cookie does not contain the key: it contains the key's prefix and an expiry time, signed by the shop.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response

from customers.security import api_keys
from customers.shop.settings import Shop
from serving.http.problems import Problem

LIFETIME_SECONDS = 12 * 3600
FORM_MEDIA_TYPE = "application/x-www-form-urlencoded"
CROSS_SITE_DETAIL = "This form was sent from another site; open the page itself and try again."


def set_session(response: Response, shop: Shop, key: str, *, secure: bool) -> None:
    """Sign the browser in as the owner of this key, for LIFETIME_SECONDS."""
    payload = f"{api_keys.key_prefix(key)}.{int(time.time()) + LIFETIME_SECONDS}"
    response.set_cookie(
        _cookie_name(shop),
        f"{payload}.{_sign(shop, payload)}",
        max_age=LIFETIME_SECONDS,
        httponly=True,
        samesite="strict",
        secure=secure,
    )


def clear_session(response: Response, shop: Shop) -> None:
    """Delete the session cookie from the browser."""
    response.delete_cookie(_cookie_name(shop), httponly=True, samesite="strict")


def read_role(shop: Shop, cookie_header: str) -> str | None:
    """The role of the signed-in key; None without a valid cookie, after its expiry, or for a revoked key."""
    payload, _, signature = _cookie_value(shop, cookie_header).rpartition(".")
    prefix, _, expires_at = payload.partition(".")
    if not hmac.compare_digest(signature.encode(), _sign(shop, payload).encode()) or int(expires_at) < time.time():
        return None
    return api_keys.role_for_prefix(shop, prefix)


def check_form_origin(headers: Headers) -> None:
    """Accept a form only from our own pages; browsers send its origin along.

    Raises Problem: 403 for a form of another site, 415 for any other content type.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    is_same_origin = (
        site in ("same-origin", "none") if site else not origin or urlsplit(origin).netloc == headers.get("host")
    )
    if not is_same_origin:
        raise Problem(403, CROSS_SITE_DETAIL)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_MEDIA_TYPE:
        raise Problem(415, "Send the page's own form.")


def _cookie_name(shop: Shop) -> str:
    """A cookie name of its own for each shop: browsers share cookies among all the ports of a machine."""
    return f"regulars_{_sign(shop, 'name')[:8]}"


def _cookie_value(shop: Shop, cookie_header: str) -> str:
    try:
        morsel = SimpleCookie(cookie_header).get(_cookie_name(shop))
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _sign(shop: Shop, payload: str) -> str:
    return hmac.new(shop.key, f"session:{payload}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
