"""The reply: what leaves by the door, as a problem document or as a page, with its request's id and nothing private."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Send

from serving import problems
from serving.console import paper
from serving.problems import Problem
from serving.visits import Visit

_BENTO_HEADERS = ("server", "x-bentoml-request-id")


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
