"""The reply: what leaves by the door, as a problem document or as a page, with its request's id and nothing private."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Send

from serving.console import templating
from serving.http import problems
from serving.http.problems import Problem
from serving.http.request_context import RequestContext

_BENTO_HEADERS = ("server", "x-bentoml-request-id")


class ResponseWriter:
    """What leaves: errors are held back and become problems, and every answer carries its request's id."""

    def __init__(self, send: Send, context: RequestContext, path: str) -> None:
        self.send = send
        self.context = context
        self.path = path
        self.status = 500
        self.is_ended = False
        self._is_started = False
        self._error_start: Message | None = None
        self._error_body = b""

    async def __call__(self, message: Message) -> None:
        """Pass a message on, or keep it until the whole of an error is known."""
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
        """Answer with a problem, unless an answer is already on its way."""
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
        """The problem for whoever reads it: a program, or a person at a page."""
        if self._is_page:
            return templating.render_problem(problem, self.context.request_id, self.path)
        return problem.response(self.context.request_id)

    async def _translate_error(self, start: Message) -> None:
        allow = Headers(raw=start["headers"]).get("allow")
        await self.send_problem(problems.from_response(start["status"], self._error_body, allow))

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_started = True
            self.status = message["status"]
            message = {**message, "headers": self._build_headers(message)}
        elif not message.get("more_body", False):
            self.is_ended = True
        await self.send(message)

    def _build_headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        headers = MutableHeaders(raw=list(message.get("headers", ())))
        for name in _BENTO_HEADERS:
            del headers[name]
        headers["X-Request-Id"] = self.context.request_id
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Cache-Control"] = "no-store"
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers.raw


def _is_foreign_error(start: MutableMapping[str, Any], is_page: bool) -> bool:
    """Whether this begins an error that we did not word ourselves."""
    content_type = Headers(raw=list(start.get("headers", ()))).get("content-type", "")
    return start["status"] >= 400 and not content_type.startswith(
        templating.HTML_MEDIA_TYPE if is_page else problems.PROBLEM_JSON
    )
