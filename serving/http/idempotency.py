"""Once: a write that is sent twice, because its answer was lost, is done once and answered alike."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from customers import access, receipts
from customers.shop import Shop
from serving import visits
from serving.problems import PROBLEM_JSON, Problem

HEADER = "Idempotency-Key"
REPLAYED = {"Idempotent-Replayed": "true"}
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def only(shop: Shop, request: Request, body: bytes, write: Callable[[], Response]) -> Response:
    """The answer to this write: done now, or what was answered before to the same request under the same key.

    What the server could not do is no answer: it is not kept, and can be asked for again.
    """
    said = request.headers.get(HEADER)
    if said is None:
        return write()
    if not _KEY.fullmatch(said):
        wrong = {"parameter": HEADER, "detail": "use 1 to 255 visible ASCII characters, a UUID for instance"}
        raise Problem(422, errors=[wrong])
    key = _key(request, said)
    with receipts.held(shop, key):
        return _once(shop, key, _asked(request, body), write)


def _once(shop: Shop, key: str, asked: bytes, write: Callable[[], Response]) -> Response:
    route = visits.current().route
    try:
        before = receipts.begin(shop, key, route.path if route else "", asked)
    except receipts.Reused as reused:
        raise Problem(422, str(reused), errors=[{"parameter": HEADER, "detail": "it names another request"}]) from None
    if before is not None:
        return _answer(before, replayed=True)
    response = _done(write)
    if response.status_code >= 500:
        return response
    return _answer(receipts.finish(shop, key, response.status_code, bytes(response.body).decode()), replayed=False)


def _done(write: Callable[[], Response]) -> Response:
    """The answer of a write; a refusal is an answer too."""
    try:
        return write()
    except Problem as problem:
        return problem.response(visits.current().request_id)


def _key(request: Request, said: str) -> str:
    """The caller's key beside the one that opened the door: two tills may count alike."""
    _, _, opened = request.headers.get("authorization", "").partition(" ")
    return f"{access.prefix_of(opened.strip())} {said}"


def _asked(request: Request, body: bytes) -> bytes:
    return f"{request.url.path}?{request.url.query}\n".encode("utf-8", "surrogatepass") + body


def _answer(receipt: receipts.Receipt, *, replayed: bool) -> Response:
    kind = PROBLEM_JSON if receipt.status >= 400 else "application/json"
    return Response(receipt.answer, receipt.status, headers=REPLAYED if replayed else {}, media_type=kind)
