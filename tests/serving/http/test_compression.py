"""Responses compressed by gzip."""

import asyncio
import gzip

import pytest
from starlette.types import Message

from serving.http import compression

JSON = [(b"content-type", b"application/json"), (b"content-length", b"5000")]


def compress(body: bytes, headers: list[tuple[bytes, bytes]] = JSON, *, more: bool = False) -> tuple[Message, Message]:
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    return asyncio.run(compression.compress(start, {"type": "http.response.body", "body": body, "more_body": more}))


@pytest.mark.parametrize("size", [5_000, compression.MAX_INLINE_BYTES * 2])
def test_a_long_body_comes_out_as_it_went_in(size: int) -> None:
    start, message = compress(b"abcd" * (size // 4))
    assert gzip.decompress(message["body"]) == b"abcd" * (size // 4)
    headers = dict(start["headers"])
    assert headers[b"content-encoding"] == b"gzip"
    assert headers[b"content-length"] == str(len(message["body"])).encode()


@pytest.mark.parametrize(("body", "more"), [(b"short", False), (b"a" * 5_000, True)])
def test_a_short_or_incomplete_body_stays_as_it_is(body: bytes, more: bool) -> None:
    start, message = compress(body, more=more)
    assert message["body"] == body
    assert b"content-encoding" not in dict(start["headers"])


def test_what_is_compressed_already_or_is_no_text_is_not() -> None:
    assert compression.is_compressible(JSON)
    assert not compression.is_compressible([*JSON, (b"content-encoding", b"br")])
    assert not compression.is_compressible([(b"content-type", b"application/vnd.apache.parquet")])
    assert not compression.is_compressible([])


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        ("gzip, deflate", True),
        ("br;q=1, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("br", False),
        ("", False),
    ],
)
def test_accept_encoding(header: str, accepts: bool) -> None:
    assert compression.accepts_gzip(header) is accepts
