"""The door of the shop: it asks for a key, turns away what it must, counts, and lets nothing private out.

One middleware around everything the server answers, BentoML's own routes and ours alike. Whatever fails
behind it leaves as a problem document without the caller's words; logs and metrics see route templates only.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import MutableMapping
from typing import Any

from anyio.to_thread import run_sync
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from customers import access
from serving import desk, metrics, problems, roles, visits
from serving.console import paper, session
from serving.problems import Problem
from serving.roles import Route
from serving.visits import Visit

log = logging.getLogger("regulars.door")

#: 1,000 ids with 1,000 exclusions are some 100 kB; this leaves room for bulk records.
BODY_BYTES = 4 * 1024 * 1024
#: Long enough for 1,000 customers on a busy machine; a client has given up by then.
PATIENCE_SECONDS = 60.0
TOO_LONG = "This took too long; ask for fewer customers at a time."

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BENTO_HEADERS = ("server", "x-bentoml-request-id")


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


class Reply:
    """What leaves: errors are held back and become problems, and every answer carries its request's id."""

    def __init__(self, send: Send, visit: Visit, path: str) -> None:
        self.send = send
        self.visit = visit
        self.path = path
        self.status = 500
        self.ended = False
        self._begun = False
        self._held: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        """Pass a message on, or keep it until the whole of an error is known."""
        if self.ended:
            return
        if message["type"] == "http.response.start" and _is_foreign_error(message, self._page):
            self._held = message
        elif self._held is None:
            await self._pass(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._translate(self._held)

    async def refuse(self, problem: Problem) -> None:
        """Answer with a problem, unless an answer is already on its way."""
        if not self._begun:
            self._held = None
            response = self._worded(problem)
            await self._pass({"type": "http.response.start", "status": problem.status, "headers": response.raw_headers})
            await self._pass({"type": "http.response.body", "body": bytes(response.body)})

    @property
    def _page(self) -> bool:
        return bool(self.visit.route and self.visit.route.page)

    def _worded(self, problem: Problem) -> Response:
        """The problem for whoever reads it: a program, or a person at a page."""
        if self._page:
            return paper.refusal(problem, self.visit.request_id, self.path)
        return problem.response(self.visit.request_id)

    async def _translate(self, held: Message) -> None:
        allow = Headers(raw=held["headers"]).get("allow")
        await self.refuse(problems.from_reply(held["status"], self._body, allow))

    async def _pass(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            self.status = message["status"]
            message = {**message, "headers": self._headers(message)}
        elif not message.get("more_body", False):
            self.ended = True
        await self.send(message)

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        headers = MutableHeaders(raw=list(message.get("headers", ())))
        for name in _BENTO_HEADERS:
            del headers[name]
        headers["X-Request-Id"] = self.visit.request_id
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Cache-Control"] = "no-store"
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers.raw


def _is_foreign_error(start: MutableMapping[str, Any], page: bool) -> bool:
    """Whether this begins an error that we did not word ourselves."""
    kind = Headers(raw=list(start.get("headers", ()))).get("content-type", "")
    return start["status"] >= 400 and not kind.startswith(paper.HTML if page else problems.PROBLEM_JSON)


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
