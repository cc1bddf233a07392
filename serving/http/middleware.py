"""Gateway middleware: authentication, size and time limits, problem responses, metrics and the request log.

It wraps everything that the server answers, BentoML's own routes and ours alike. Every failure behind it becomes a
problem that repeats nothing of the request; logs and metrics contain route templates only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from customers.database import direct_reads
from customers.shop.errors import ShopUnavailable
from serving import logs, runtime
from serving.http import authentication, compression, problems, prometheus, request_context, routes, session_cookie
from serving.http.problems import Problem
from serving.http.request_context import RequestContext
from serving.http.responses import ProblemPageRenderer, ResponseWriter
from serving.http.routes import Route

log = logging.getLogger("regulars.http")

#: 10,000 ids of the greatest length are 8 MB; this leaves space for exclusions.
MAX_BODY_BYTES = 12 * 1024 * 1024
#: Long enough for 1,000 customers to be scored on a busy machine; a client has usually given up by then.
TIMEOUT_SECONDS = 60.0
TIMEOUT_DETAIL = "This took too long; ask for fewer customers at a time."

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


#: Answers a request without the app: from its route, path, query, body and headers; None where the app must answer.
LookupAnswer = Callable[[Route, str, str, bytes, Headers], Awaitable[Response | None]]


class GatewayMiddleware:
    """ASGI middleware around the whole server. `render_problem_page` renders the problems of routes that are pages.

    `look_up` is tried before a request is forwarded to the app. `answers_in_outage` says whether this process could
    answer anything while the customer database does not.
    """

    def __init__(
        self,
        app: ASGIApp,
        render_problem_page: ProblemPageRenderer,
        look_up: LookupAnswer | None = None,
        answers_in_outage: Callable[[], bool] = lambda: False,
    ) -> None:
        self.app = app
        self.answers_in_outage = answers_in_outage
        self.render_problem_page = render_problem_page
        self.look_up = look_up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an HTTP request; lifespan events pass through, and websockets are closed (1008, policy violation)."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        context = request_context.begin(headers.get("x-request-id", ""))
        writer = ResponseWriter(
            send,
            context,
            scope["path"],
            self.render_problem_page,
            accepts_gzip=compression.accepts_gzip(headers.get("accept-encoding", "")),
        )
        try:
            await self._authorize_and_forward(context, scope, receive, writer)
        except Problem as problem:
            await writer.send_problem(problem)
        except ClientDisconnected:
            writer.status = 499
        except ShopUnavailable as error:
            if not _is_database_away():  # an outage has a line of its own
                log.warning(
                    "%s %s: %s", context.request_id, _route_template(context), problems.describe_traceback(error)
                )
            await writer.send_problem(problems.from_exception(error))
        except Exception as error:
            log.error("%s %s: %s", context.request_id, _route_template(context), problems.describe_traceback(error))
            await writer.send_problem(problems.from_exception(error))
        finally:
            _record_request(context, scope["method"], writer.status)

    async def _authorize_and_forward(
        self, context: RequestContext, scope: Scope, receive: Receive, writer: ResponseWriter
    ) -> None:
        headers = Headers(scope=scope)
        context.route = _match_route(context, scope)
        if not context.route.is_public:
            context.role = await authentication.authenticate(context, headers)
            if context.role not in context.route.roles:
                raise Problem(403)
        if context.route.path == "/readyz":
            response = await run_sync(_readyz, self.answers_in_outage)
            return await response(scope, receive, writer)
        if context.route.path in _LOCAL_ROUTES:
            response = await run_sync(_LOCAL_ROUTES[context.route.path])
            return await response(scope, receive, writer)
        body = b""
        if context.route.method == "POST":
            session_cookie.check_form_origin(headers) if context.route.is_page else _check_content_type(headers)
            body = await _read_body(headers, receive)
            receive = _replay_body(body)
        if self.look_up is not None and not context.route.is_page:
            answer = await self._answer_from_lookup(context.route, scope, body, headers)
            if answer is not None:
                return await answer(scope, receive, writer)
        return await self._forward(scope, receive, writer)

    async def _answer_from_lookup(self, route: Route, scope: Scope, body: bytes, headers: Headers) -> Response | None:
        assert self.look_up is not None
        query = scope["query_string"].decode("latin-1")
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await self.look_up(route, scope["path"], query, body, headers)
        except TimeoutError:
            raise Problem(503, TIMEOUT_DETAIL, headers={"Retry-After": "5"}) from None

    async def _forward(self, scope: Scope, receive: Receive, writer: ResponseWriter) -> None:
        """Wait for the app, at most TIMEOUT_SECONDS; what a worker thread computes after that is dropped."""
        task = asyncio.ensure_future(self.app(scope, receive, writer))
        try:
            done, _ = await asyncio.wait({task}, timeout=TIMEOUT_SECONDS)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if done:
            return task.result()
        task.cancel()
        task.add_done_callback(_log_late_error)
        raise Problem(503, TIMEOUT_DETAIL, headers={"Retry-After": "5"})


def _log_late_error(task: asyncio.Future[None]) -> None:
    """Log an error after the timeout by its place: asyncio would log its text, which may contain personal data."""
    if not task.cancelled() and (error := task.exception()):
        log.error("after the timeout: %s", problems.describe_traceback(error))


class ClientDisconnected(Exception):
    """The client disconnected before its request was complete."""


def _match_route(context: RequestContext, scope: Scope) -> Route:
    """The route of this path and method; a wrong method is counted under its path."""
    matches = routes.match_routes(scope["path"])
    if not matches:
        raise Problem(404)
    for route in matches:
        context.route = route
        if route.method == scope["method"]:
            return route
    raise Problem(405, headers={"Allow": ", ".join(sorted(route.method for route in matches))})


def _check_content_type(headers: Headers) -> None:
    """Accept only plain JSON: BentoML would also read forms, fetch files by URL, and load pickles."""
    media_type, _, parameters = headers.get("content-type", "application/json").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    is_uncompressed = headers.get("content-encoding", "identity").lower() == "identity"
    if media_type.strip() != "application/json" or charset not in ("", "charset=utf-8") or not is_uncompressed:
        raise Problem(415, headers={"Accept-Post": "application/json"})


async def _read_body(headers: Headers, receive: Receive) -> bytes:
    """Read the whole body, of at most MAX_BODY_BYTES."""
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise Problem(413)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise Problem(413)
        if not message.get("more_body", False):
            return bytes(body)


def _replay_body(body: bytes) -> Receive:
    """An ASGI receive function that replays a body that was already read."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return receive


def _is_database_away() -> bool:
    try:
        return direct_reads.get_reader(runtime.get_runtime().shop).is_away
    except ShopUnavailable:
        return False


def _livez() -> Response:
    return PlainTextResponse("alive\n")


def _readyz(answers_in_outage: Callable[[], bool]) -> Response:
    """Whether predictions can be served, and what is missing; 503 without any champion, or anything read before."""
    readiness = runtime.get_runtime().check_readiness()
    reasons = readiness.reasons
    if _is_database_away() and not answers_in_outage():
        reasons = [*reasons, "this worker has read nothing of the customer database yet, and can answer nothing"]
    elif readiness.is_ready:
        return JSONResponse({"status": "ready", "models": readiness.models, "reasons": readiness.reasons})
    return Problem(503, "Not ready to answer; see reasons.", reasons=reasons).response()


_LOCAL_ROUTES = {"/livez": _livez, "/metrics": prometheus.render_metrics}


def _route_template(context: RequestContext) -> str:
    return context.route.path if context.route else prometheus.UNMATCHED


def _record_request(context: RequestContext, method: str, status: int) -> None:
    """Count the request and write its line in the request log."""
    method = method if method in _METHODS else "OTHER"
    prometheus.count_request(_route_template(context), method, status, context.took_ms / 1000)
    if log.isEnabledFor(logging.INFO):
        fields = {
            "request_id": context.request_id,
            "route": _route_template(context),
            "method": method,
            "status": status,
            "role": context.role,
            "took_ms": context.took_ms,
        }
        log.info(logs.LogEvent("request", **fields))
