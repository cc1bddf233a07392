"""Webhooks that report a finished export, signed as standardwebhooks.com describes, and called again until it works.

The body holds the id, state and counts of a job and where its file is read: no personal data. Redirects are not
followed. Which addresses may be called is decided in `webhook_addresses`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from customers.database import shop_lock
from customers.shop.settings import Shop
from serving.exports import export_jobs, webhook_addresses
from serving.exports.export_jobs import ExportJob
from serving.exports.webhook_addresses import WebhookRefused

#: A whole call takes no longer than this.
CALL_SECONDS = 15.0
#: Seconds after each failed call until the next; after the last of them no other follows.
RETRY_SECONDS = (1, 5, 30, 300, 1_800, 7_200)
SECRET_PREFIX, SIGNATURE_VERSION = "whsec_", "v1"
LOCK_NAME = "webhooks"


def signing_secret(shop: Shop) -> str:
    """The secret with which a receiver verifies the calls, in the notation of standard webhooks."""
    return SECRET_PREFIX + base64.b64encode(_signing_key(shop)).decode()


def deliver_due(shop: Shop, now: datetime) -> None:
    """Call the webhooks that are due, unless another process does."""
    due = [job for job in export_jobs.list_jobs(shop) if _is_due(job, now)]
    if not due:
        return
    with suppress(shop_lock.LockHeld), shop_lock.hold_home(shop, LOCK_NAME, wait=False):
        for listed in due:
            job = export_jobs.load_job(shop, listed.job_id)
            if job is not None and _is_due(job, now):  # another process may have called it since
                deliver(shop, job, datetime.now(UTC))


def _is_due(job: ExportJob, now: datetime) -> bool:
    return job.is_finished and job.webhook_state == export_jobs.PENDING and (job.webhook_after or now) <= now


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
        webhook_addresses.check_url(job.webhook_url)
        connection = webhook_addresses.connect(job.webhook_url)
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
