"""The door of the shop: it asks for a key, turns away what it must, counts, and lets nothing private out.

One middleware around everything the server answers, BentoML's own routes and ours alike. Whatever fails
behind it leaves as a problem document without the caller's words; logs and metrics see route templates only.
"""

from __future__ import annotations

import asyncio
import json
import logging

from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from customers import access
from serving import desk, metrics, problems, roles, visits
from serving.console import session
from serving.problems import Problem
from serving.reply import Reply
from serving.roles import Route
from serving.visits import Visit

log = logging.getLogger("regulars.door")

#: 1,000 ids with 1,000 exclusions are some 100 kB; this leaves room for bulk records.
BODY_BYTES = 4 * 1024 * 1024
#: Long enough for 1,000 customers on a busy machine; a client has given up by then.
PATIENCE_SECONDS = 60.0
TOO_LONG = "This took too long; ask for fewer customers at a time."

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Door:
    """The middleware that owns the edge."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not; start-up passes, and there are no other ways in."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._visit(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _visit(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = visits.begin(Headers(scope=scope).get("x-request-id", ""))
        reply = Reply(send, visit, scope["path"])
        try:
            await self._admit(visit, scope, receive, reply)
        except Problem as problem:
            await reply.refuse(problem)
        except Gone:
            reply.status = 499
        except Exception as error:
            log.error("%s %s: %s", visit.request_id, _template(visit), problems.whereabouts(error))
            await reply.refuse(problems.of(error))
        finally:
            _account(visit, scope["method"], reply.status)

    async def _admit(self, visit: Visit, scope: Scope, receive: Receive, reply: Reply) -> None:
        headers = Headers(scope=scope)
        visit.route = _route(visit, scope)
        if not visit.route.open:
            visit.role = await run_sync(_role, visit.route, headers)
            if visit.role not in visit.route.roles:
                raise Problem(403)
        if visit.route.path in _HERE:
            response = await run_sync(_HERE[visit.route.path])
            return await response(scope, receive, reply)
        if visit.route.method == "POST":
            session.check_form(headers) if visit.route.page else _check_content(headers)
            receive = _again(await _body(headers, receive))
        return await self._answer(scope, receive, reply)

    async def _answer(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        """Wait for the answer, but not for ever; a thread that goes on has nobody left to talk to."""
        work = asyncio.ensure_future(self.app(scope, receive, reply))
        try:
            done, _ = await asyncio.wait({work}, timeout=PATIENCE_SECONDS)
        except asyncio.CancelledError:
            work.cancel()
            raise
        if done:
            return work.result()
        work.cancel()
        raise Problem(503, TOO_LONG, headers={"Retry-After": "5"})


class Gone(Exception):
    """The caller hung up before the question was complete."""


def _route(visit: Visit, scope: Scope) -> Route:
    """The question asked, by path and method; a wrong method is counted under its path."""
    here = roles.matching(scope["path"])
    if not here:
        raise Problem(404)
    for route in here:
        visit.route = route
        if route.method == scope["method"]:
            return route
    raise Problem(405, headers={"Allow": ", ".join(sorted(route.method for route in here))})


def _role(route: Route, headers: Headers) -> str:
    """The role of the key that was sent, or with which the reader of a page signed in.

    A cookie opens pages alone: browsers send it by themselves, and no program's question may be asked that way.
    """
    shop = desk.here().shop
    if route.page:
        role = session.role_of(shop, headers.get("cookie", ""))
    else:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else ""
        role = access.role_of(shop, key) if key else None
    if role is None:
        raise Problem(401)
    return role


def _check_content(headers: Headers) -> None:
    """Only plain JSON may come in: BentoML would also read forms, fetch files by URL, and know pickles."""
    kind, _, parameters = headers.get("content-type", "application/json").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    plain = headers.get("content-encoding", "identity").lower() == "identity"
    if kind.strip() != "application/json" or charset not in ("", "charset=utf-8") or not plain:
        raise Problem(415, headers={"Accept-Post": "application/json"})


async def _body(headers: Headers, receive: Receive) -> bytes:
    """The whole body, and no more of it than is allowed."""
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > BODY_BYTES:
        raise Problem(413)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        body += message.get("body", b"")
        if len(body) > BODY_BYTES:
            raise Problem(413)
        if not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes) -> Receive:
    """A body that was read already, to be read once more behind the door."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return receive


def _alive() -> Response:
    return PlainTextResponse("alive\n")


def _ready() -> Response:
    """Whether questions can be answered, and what is missing; without any champion nobody could."""
    state = desk.here().readiness()
    if state.ready:
        return JSONResponse({"status": "ready", "models": state.models, "reasons": state.reasons})
    return Problem(503, "Not ready to answer; see reasons.", reasons=state.reasons).response()


_HERE = {"/livez": _alive, "/readyz": _ready, "/metrics": metrics.page}


def _template(visit: Visit) -> str:
    return visit.route.path if visit.route else metrics.UNMATCHED


def _account(visit: Visit, method: str, status: int) -> None:
    """Count the visit and write its one line."""
    method = method if method in _METHODS else "OTHER"
    metrics.request(_template(visit), method, status, visit.took_ms / 1000)
    if log.isEnabledFor(logging.INFO):
        facts = {
            "request_id": visit.request_id,
            "route": _template(visit),
            "method": method,
            "status": status,
            "role": visit.role,
            "took_ms": visit.took_ms,
        }
        log.info(json.dumps(facts))
