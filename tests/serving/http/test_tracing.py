"""The trace of a request: named by its route template, with nothing that the caller sent."""

import asyncio
from types import SimpleNamespace
from typing import Any

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.responses import PlainTextResponse

from customers import tracing
from serving.http.middleware import GatewayMiddleware
from serving.http.tracing import TracingMiddleware

CANARY = "wilhelmina.canary@example.com"


def serve(path: str, method: str = "GET", headers: dict[str, str] | None = None, *, fails: bool = False) -> int:
    """The status of a request that passes through both middlewares to an app which answers or fails."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with tracing.span("scoring"):
            if fails:
                raise ValueError(CANARY)
            await PlainTextResponse("ok")(scope, receive, send)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    statuses = []

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    gateway = GatewayMiddleware(app, render_problem_page=lambda problem, request_id, path: problem.response(request_id))
    scope = {
        "type": "http", "path": path, "method": method, "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
    }  # fmt: skip
    asyncio.run(TracingMiddleware(gateway)(scope, receive, send))
    return statuses[0]


def test_a_request_is_named_by_its_route_template(spans: InMemorySpanExporter, monkeypatch: Any) -> None:
    async def authenticate(context: Any, headers: Any) -> str:
        return "admin"

    monkeypatch.setattr("serving.http.authentication.authenticate", authenticate)
    request_id = "0e1d2c3b-4a59-4687-9788-a9bacbdcedfe"
    assert serve(f"/v1/customers/{CANARY}/churn", headers={"x-request-id": request_id}) == 200
    scoring, request = spans.get_finished_spans()
    assert request.name == "GET /v1/customers/{customer_id}/churn"
    assert request.attributes == {
        "http.request.method": "GET",
        "http.route": "/v1/customers/{customer_id}/churn",
        "http.response.status_code": 200,
        "request_id": request_id,
    }
    assert scoring.parent.span_id == request.context.span_id
    assert CANARY not in request.to_json()


def test_an_unknown_path_and_an_unknown_method_have_no_name_of_their_own(spans: InMemorySpanExporter) -> None:
    assert serve(f"/{CANARY}", method="CANARY", headers={"traceparent": CANARY}) == 404
    (request,) = spans.get_finished_spans()
    assert request.name == "_OTHER unmatched"
    assert "canary" not in request.to_json().lower()


def test_a_failure_is_an_error_without_its_message(spans: InMemorySpanExporter) -> None:
    assert serve("/style.css", fails=True) == 500
    scoring, request = spans.get_finished_spans()
    assert (scoring.status.description, request.status.is_ok) == ("ValueError", False)
    assert "canary" not in scoring.to_json() + request.to_json()


def test_what_is_no_request_passes_through(spans: InMemorySpanExporter) -> None:
    calls: list[SimpleNamespace] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope)

    asyncio.run(TracingMiddleware(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert calls == [{"type": "lifespan"}]
    assert spans.get_finished_spans() == ()
