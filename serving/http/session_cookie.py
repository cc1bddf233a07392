"""Signed in: who opened the desk's pages with a key, remembered for a working day by their own browser.

The browser never holds the key: what it is given names the key, ends by itself, and is sealed by the shop.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response

from customers import access
from customers.shop import Shop
from serving.problems import Problem

SECONDS = 12 * 3600
FORM = "application/x-www-form-urlencoded"
ELSEWHERE = "This form was sent from another site; open the page itself and try again."


def begin(response: Response, shop: Shop, key: str, *, secure: bool) -> None:
    """Remember in the browser that this key was shown; the door asks no more until the day is over."""
    said = f"{access.prefix_of(key)}.{int(time.time()) + SECONDS}"
    response.set_cookie(
        _name(shop), f"{said}.{_seal(shop, said)}", max_age=SECONDS, httponly=True, samesite="strict", secure=secure
    )


def end(response: Response, shop: Shop) -> None:
    """Forget it again."""
    response.delete_cookie(_name(shop), httponly=True, samesite="strict")


def role_of(shop: Shop, cookies: str) -> str | None:
    """The role of whoever is signed in; None for nobody, too long ago, or a key that is no more."""
    said, _, seal = _value(shop, cookies).rpartition(".")
    prefix, _, until = said.partition(".")
    if not hmac.compare_digest(seal.encode(), _seal(shop, said).encode()) or int(until) < time.time():
        return None
    return access.role_named(shop, prefix)


def check_form(headers: Headers) -> None:
    """Let in a form that one of our own pages sent, and no other: browsers say where a form comes from."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    ours = site in ("same-origin", "none") if site else not origin or urlsplit(origin).netloc == headers.get("host")
    if not ours:
        raise Problem(403, ELSEWHERE)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Problem(415, "Send the page's own form.")


def _name(shop: Shop) -> str:
    """A name of this shop's own: browsers share cookies among all the ports of a machine."""
    return f"regulars_{_seal(shop, 'name')[:8]}"


def _value(shop: Shop, cookies: str) -> str:
    try:
        found = SimpleCookie(cookies).get(_name(shop))
    except CookieError:
        return ""
    return found.value if found else ""


def _seal(shop: Shop, said: str) -> str:
    return hmac.new(shop.key, f"session:{said}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
