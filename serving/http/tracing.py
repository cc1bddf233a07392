"""Tracing middleware: one trace per request, named by method and route template."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from customers import tracing
from serving.http import request_context
from serving.http.prometheus import UNMATCHED

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class TracingMiddleware:
    """ASGI middleware outside the gateway, to be added only where `tracing.is_enabled()`.

    A span has the method, the route template, the status and the request id; neither path nor query nor headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an HTTP request inside a span; anything else passes through."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status = 0

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        with tracing.start_trace("request", Headers(scope=scope).get("traceparent")) as span:
            try:
                await self.app(scope, receive, send_and_note_status)
            finally:
                _describe(span, scope["method"], status)


def _describe(span: object, method: str, status: int) -> None:
    from opentelemetry.trace import Span, StatusCode

    assert isinstance(span, Span)
    fields = request_context.log_fields()
    method, route = method if method in _METHODS else "_OTHER", fields.get("route", UNMATCHED)
    span.update_name(f"{method} {route}")
    span.set_attributes(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "request_id": fields.get("request_id", ""),
        }
    )
    if status >= 500:
        span.set_status(StatusCode.ERROR)
