"""Webhooks that report a finished export: signed as standardwebhooks.com describes, to allowed addresses only.

The body holds the id, state and counts of a job and where its file is read: no personal data. Redirects are not
followed, and the address that was checked is the one that is called.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import json
import os
import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from customers.shop.errors import ShopError
from customers.shop.settings import Shop
from serving.exports import export_jobs
from serving.exports.export_jobs import ExportJob

#: Hosts that may be called by http, on any address and port: `host` or `host:port`, separated by commas.
HOSTS_VARIABLE = "REGULARS_WEBHOOK_HOSTS"
TIMEOUT_SECONDS = 10.0
#: A whole call takes no longer than this.
CALL_SECONDS = 15.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
#: Seconds after each failed call until the next; after the last of them no other follows.
RETRY_SECONDS = (1, 5, 30, 300, 1_800, 7_200)
SECRET_PREFIX, SIGNATURE_VERSION = "whsec_", "v1"


class WebhookRefused(ShopError):
    """The address of a webhook may not be called."""


def signing_secret(shop: Shop) -> str:
    """The secret with which a receiver verifies the calls, in the notation of standard webhooks."""
    return SECRET_PREFIX + base64.b64encode(_signing_key(shop)).decode()


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


def deliver_due(shop: Shop, now: datetime) -> None:
    """Call the webhooks that are due, unless another process does."""
    with export_jobs.lock(shop, "webhooks") as is_held:
        if not is_held:
            return
        for job in export_jobs.list_jobs(shop):
            if job.is_finished and job.webhook_state == export_jobs.PENDING and (job.webhook_after or now) <= now:
                deliver(shop, job, datetime.now(UTC))


def deliver(shop: Shop, job: ExportJob, now: datetime) -> ExportJob:
    """Call the webhook of a finished job once, and store how that went."""
    attempts = job.webhook_attempts + 1
    if _call(shop, job, now):
        return export_jobs.save_job(
            shop, job, webhook_state=export_jobs.DELIVERED, webhook_attempts=attempts, webhook_after=None
        )
    if attempts > len(RETRY_SECONDS):
        return export_jobs.save_job(
            shop, job, webhook_state=export_jobs.FAILED, webhook_attempts=attempts, webhook_after=None
        )
    after = now + timedelta(seconds=RETRY_SECONDS[attempts - 1])
    return export_jobs.save_job(shop, job, webhook_attempts=attempts, webhook_after=after)


def build_body(job: ExportJob) -> bytes:
    """What is sent: id, state, table, counts and the path of the file."""
    is_done = job.state == export_jobs.DONE
    fields = {
        "type": "export.done" if is_done else "export.failed",
        "timestamp": (job.finished_at or job.created_at).isoformat(),
        "data": {
            "export_id": job.job_id,
            "state": job.state,
            "table": job.table,
            "format": job.file_format,
            "rows": job.rows,
            "size_bytes": job.size_bytes,
            "location": f"/v1/exports/{job.job_id}/file" if is_done else None,
            "error": job.error,
        },
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def sign(shop: Shop, message_id: str, timestamp: int, body: bytes) -> str:
    """The header webhook-signature: HMAC-SHA256 of id, time and body."""
    digest = hmac.new(_signing_key(shop), f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"{SIGNATURE_VERSION},{base64.b64encode(digest).decode()}"


def _signing_key(shop: Shop) -> bytes:
    return hmac.new(shop.key, b"webhook signatures", hashlib.sha256).digest()


def _call(shop: Shop, job: ExportJob, now: datetime) -> bool:
    """Whether the receiver has answered with a 2xx status."""
    assert job.webhook_url is not None
    body, message_id, timestamp = build_body(job), f"export_{job.job_id}", int(now.astimezone(UTC).timestamp())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "regulars",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(shop, message_id, timestamp, body),
    }
    parts = urlsplit(job.webhook_url)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        check_url(job.webhook_url)
        connection = _connect(job.webhook_url)
        # The socket's own limit is one for each read: a receiver that sends a byte now and then would hold all others.
        limit = threading.Timer(CALL_SECONDS, _shut_down, [connection])
        limit.start()
        try:
            connection.request("POST", path, body, headers)
            return 200 <= connection.getresponse().status < 300
        finally:
            limit.cancel()
            connection.close()
    except (OSError, ValueError, http.client.HTTPException, WebhookRefused):
        return False


def _shut_down(connection: http.client.HTTPConnection) -> None:
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def _connect(url: str) -> http.client.HTTPConnection:
    """A connection to the checked address of the host, so that a second look-up of its name changes nothing."""
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
