"""Idempotency keys: a write that is sent twice, because its response was lost, runs once and gets the same response."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from customers.loading import idempotency
from customers.security import api_keys
from customers.shop.settings import Shop
from serving.http import request_context
from serving.http.problems import PROBLEM_JSON, Problem

KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADERS = {"Idempotent-Replayed": "true"}
_KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,255}")


def run_once(shop: Shop, request: Request, body: bytes, write: Callable[[], Response]) -> Response:
    """Run a write, or replay the stored response of the same request under the same Idempotency-Key.

    Without the header the write just runs. A response of status 500 or above is not stored, so that the client can
    try again. Raises Problem (422) for a malformed key, or one that named another request.
    """
    client_key = request.headers.get(KEY_HEADER)
    if client_key is None:
        return write()
    if not _KEY_PATTERN.fullmatch(client_key):
        error = {"parameter": KEY_HEADER, "detail": "use 1 to 255 visible ASCII characters, a UUID for instance"}
        raise Problem(422, errors=[error])
    key = _scoped_key(request, client_key)
    with idempotency.lock_key(shop, key):
        return _run_with_key(shop, key, _request_content(request, body), write)


def _run_with_key(shop: Shop, key: str, content: bytes, write: Callable[[], Response]) -> Response:
    route = request_context.current().route
    try:
        record = idempotency.begin_request(shop, key, route.path if route else "", content)
    except idempotency.IdempotencyKeyReused as reused:
        raise Problem(
            422, str(reused), errors=[{"parameter": KEY_HEADER, "detail": "it names another request"}]
        ) from None
    if record is not None:
        return _to_response(record, replayed=True)
    response = _run(write)
    if response.status_code >= 500:
        return response
    return _to_response(
        idempotency.finish_request(shop, key, response.status_code, bytes(response.body).decode()), replayed=False
    )


def _run(write: Callable[[], Response]) -> Response:
    """The response of a write; a Problem is a response too."""
    try:
        return write()
    except Problem as problem:
        return problem.response(request_context.current().request_id)


def _scoped_key(request: Request, client_key: str) -> str:
    """The idempotency key, scoped by the API key of the caller: two tills may number their writes alike."""
    _, _, api_key = request.headers.get("authorization", "").partition(" ")
    return f"{api_keys.key_prefix(api_key.strip())} {client_key}"


def _request_content(request: Request, body: bytes) -> bytes:
    return f"{request.url.path}?{request.url.query}\n".encode("utf-8", "surrogatepass") + body


def _to_response(record: idempotency.IdempotencyRecord, *, replayed: bool) -> Response:
    media_type = PROBLEM_JSON if record.status >= 400 else "application/json"
    return Response(record.answer, record.status, headers=REPLAYED_HEADERS if replayed else {}, media_type=media_type)
