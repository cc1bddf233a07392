"""The addresses that webhooks may call: by https on a public address, and what the operator lists.

The address that was checked is the one that is called.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import socket
import ssl
from urllib.parse import urlsplit

from customers.shop.errors import ShopError

#: Hosts that may be called by http, on any address and port: `host` or `host:port`, separated by commas.
HOSTS_VARIABLE = "REGULARS_WEBHOOK_HOSTS"
TIMEOUT_SECONDS = 10.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class WebhookRefused(ShopError):
    """The address of a webhook may not be called."""


def check_url(url: str) -> None:
    """Check that a webhook may be called here. Raises WebhookRefused: the caller must not learn what lies behind.

    Allowed are https on a public address, and what the operator lists in REGULARS_WEBHOOK_HOSTS.
    """
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")
    except ValueError:
        raise WebhookRefused("the webhook's address is not a valid one: https://HOST/PATH") from None
    if parts.username or parts.password or parts.fragment or not parts.hostname:
        raise WebhookRefused("the webhook's address must be https://HOST/PATH without a user, a password or a fragment")
    if not _is_configured(parts.hostname, _port(url)) and parts.scheme != "https":
        raise WebhookRefused(f"webhooks are called by https; other hosts are listed in {HOSTS_VARIABLE}")
    if parts.scheme not in ("http", "https"):
        raise WebhookRefused("the webhook's address must begin with https://")


def connect(url: str) -> http.client.HTTPConnection:
    """A connection to the checked address of the host, so that a second look-up of its name changes nothing.

    Raises WebhookRefused for an address that may not be called, OSError where nobody answers.
    """
    parts, port = urlsplit(url), _port(url)
    host = str(parts.hostname)
    address = _resolve(host, port)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    raw = socket.create_connection((address, port), TIMEOUT_SECONDS)
    connection.sock = raw
    if parts.scheme == "https":
        connection.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=host)
    return connection


def _resolve(host: str, port: int) -> str:
    """An address of the host. Raises WebhookRefused where one of them is not public and the host is not configured."""
    addresses = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not _is_configured(host, port) and not all(map(_is_public, addresses)):
        raise WebhookRefused("the webhook's host has an address that is not public")
    return addresses[0]


def _is_public(address: str) -> bool:
    """Whether an address, and one of IPv4 that it may stand for, is one of the public internet."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF) if parsed in _NAT64 else None
        inner = [each for each in (parsed.ipv4_mapped, parsed.sixtofour, translated) if each is not None]
        if parsed.teredo or parsed.is_site_local or not all(each.is_global for each in inner):
            return False
    return parsed.is_global and not parsed.is_multicast


def _is_configured(host: str, port: int) -> bool:
    names = {name.strip().lower() for name in os.environ.get(HOSTS_VARIABLE, "").split(",")} - {""}
    return host.lower() in names or f"{host.lower()}:{port}" in names


def _port(url: str) -> int:
    parts = urlsplit(url)
    try:
        return parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise WebhookRefused("the webhook's address has no valid port") from None
