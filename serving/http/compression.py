"""Compression of responses by gzip, for clients that accept it and bodies that are worth it."""

from __future__ import annotations

import gzip
from collections.abc import Sequence

from anyio.to_thread import run_sync
from starlette.types import Message

Headers = Sequence[tuple[bytes, bytes]]
#: Shorter bodies fit into a packet or two anyway.
MIN_BYTES = 2_000
#: Longer bodies are compressed by a worker thread, so that other requests go on.
MAX_INLINE_BYTES = 100_000
#: Fast rather than small: of JSON it leaves an eighth, the highest level a tenth at ten times the work.
LEVEL = 1
_COMPRESSIBLE_TYPES = (b"application/json", b"application/problem+json", b"text/", b"image/svg+xml")


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip."""
    for part in accept_encoding.lower().split(","):
        name, _, quality = part.replace(" ", "").partition(";")
        if name in ("gzip", "*"):
            return quality not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def is_compressible(headers: Headers) -> bool:
    """Whether a response of this type would become shorter; one that is compressed already would not."""
    by_name = dict(headers)
    return b"content-encoding" not in by_name and by_name.get(b"content-type", b"").startswith(_COMPRESSIBLE_TYPES)


async def compress(start: Message, body: Message) -> tuple[Message, Message]:
    """The start of a response and its body, compressed where the body is complete and long enough."""
    content = body.get("body", b"")
    if body.get("more_body", False) or len(content) < MIN_BYTES:
        return start, body
    if len(content) > MAX_INLINE_BYTES:
        compressed = await run_sync(_compress, content)
    else:
        compressed = _compress(content)
    headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
    headers += [
        (b"content-length", str(len(compressed)).encode()),
        (b"content-encoding", b"gzip"),
        (b"vary", b"Accept-Encoding"),
    ]
    return {**start, "headers": headers}, {**body, "body": compressed}


def _compress(content: bytes) -> bytes:
    return gzip.compress(content, LEVEL, mtime=0)
