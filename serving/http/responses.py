"""Response writer: adds the request id and safe headers, and replaces the errors of frameworks by problems."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Send

from serving.http import compression, problems
from serving.http.problems import Problem
from serving.http.request_context import RequestContext

HTML_MEDIA_TYPE = "text/html"
#: Renders a problem as a page, from the problem, the request id and the path of the request.
ProblemPageRenderer = Callable[[Problem, str, str], Response]

_SAFE_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_BENTO_HEADERS = (b"server", b"x-bentoml-request-id")
_REPLACED_HEADERS = frozenset({*_BENTO_HEADERS, b"x-request-id", *(name for name, _ in _SAFE_HEADERS)})


class ResponseWriter:
    """ASGI send function that replaces the errors of frameworks by problems and adds headers to every response."""

    def __init__(
        self,
        send: Send,
        context: RequestContext,
        path: str,
        render_problem_page: ProblemPageRenderer,
        *,
        accepts_gzip: bool = False,
    ) -> None:
        self.send = send
        self.context = context
        self.path = path
        self.render_problem_page = render_problem_page
        self.accepts_gzip = accepts_gzip
        self.status = 500
        self.is_ended = False
        self._is_started = False
        self._error_start: Message | None = None
        self._error_body = b""
        self._uncompressed_start: Message | None = None

    async def __call__(self, message: Message) -> None:
        """Send a message, or hold it back until the whole body of an error has arrived."""
        if self.is_ended:
            return
        if message["type"] == "http.response.start" and _is_foreign_error(message, self._is_page):
            self._error_start = message
        elif self._error_start is None:
            await self._forward(message)
        else:
            self._error_body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._translate_error(self._error_start)

    async def send_problem(self, problem: Problem) -> None:
        """Respond with a problem, unless a response has already begun."""
        if not self._is_started:
            self._error_start = None
            response = self._to_response(problem)
            await self._forward(
                {"type": "http.response.start", "status": problem.status, "headers": response.raw_headers}
            )
            await self._forward({"type": "http.response.body", "body": bytes(response.body)})

    @property
    def _is_page(self) -> bool:
        return bool(self.context.route and self.context.route.is_page)

    def _to_response(self, problem: Problem) -> Response:
        """The problem as a page where the route is one, else as a problem document."""
        if self._is_page:
            return self.render_problem_page(problem, self.context.request_id, self.path)
        return problem.response(self.context.request_id)

    async def _translate_error(self, start: Message) -> None:
        allow = Headers(raw=start["headers"]).get("allow")
        await self.send_problem(problems.from_response(start["status"], self._error_body, allow))

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_started = True
            self.status = message["status"]
            message = {**message, "headers": self._build_headers(message)}
            if self.accepts_gzip and compression.is_compressible(message["headers"]):
                self._uncompressed_start = message  # its length is that of the body, which comes next
                return
        else:
            self.is_ended = not message.get("more_body", False)
            if self._uncompressed_start is not None:
                start, self._uncompressed_start = self._uncompressed_start, None
                start, message = await compression.compress(start, message)
                await self.send(start)
        await self.send(message)

    def _build_headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        headers = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in _REPLACED_HEADERS]
        headers.append((b"x-request-id", self.context.request_id.encode()))
        headers += _SAFE_HEADERS
        if self.context.degraded:
            headers.append((b"x-regulars-degraded", f"age={self.context.degraded.age_seconds:.0f}".encode()))
        if self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers


def _is_foreign_error(start: MutableMapping[str, Any], is_page: bool) -> bool:
    """Whether this begins an error response that a framework made, not one of our problems."""
    if start["status"] < 400:
        return False
    content_type = Headers(raw=list(start.get("headers", ()))).get("content-type", "")
    return not content_type.startswith(HTML_MEDIA_TYPE if is_page else problems.PROBLEM_JSON)
