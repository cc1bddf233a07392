"""Traces: sent only where OpenTelemetry and an endpoint are there, and without the text of an error."""

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from customers import setup, tracing
from customers.database import engine

CANARY = "wilhelmina.canary@example.com"
REMOTE_TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(autouse=True)
def fresh_tracer() -> Iterator[None]:
    tracing.get_tracer.cache_clear()
    yield
    getattr(tracing.get_tracer, "cache_clear", lambda: None)()


def run_python(code: str, **variables: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], env=variables, check=True, capture_output=True, text=True)
    return result.stdout + result.stderr


def test_a_span_belongs_to_the_trace_around_it(spans: InMemorySpanExporter) -> None:
    with tracing.start_trace("request"), tracing.span("scoring", model="churn"), tracing.span("database"):
        pass
    database, scoring, request = spans.get_finished_spans()
    assert [each.name for each in (database, scoring, request)] == ["database", "scoring", "request"]
    assert request.parent is None
    assert (scoring.parent.span_id, database.parent.span_id) == (request.context.span_id, scoring.context.span_id)
    assert scoring.attributes == {"model": "churn"}
    assert request.resource.attributes["service.name"] == "regulars"


def test_outside_a_trace_nothing_is_recorded(spans: InMemorySpanExporter) -> None:
    with tracing.span("database"):
        pass
    assert spans.get_finished_spans() == ()


def test_the_trace_of_the_caller_goes_on(spans: InMemorySpanExporter) -> None:
    with tracing.start_trace("request", f"00-{REMOTE_TRACE}-b7ad6b7169203331-01"):
        pass
    (request,) = spans.get_finished_spans()
    assert f"{request.context.trace_id:032x}" == REMOTE_TRACE


@pytest.mark.parametrize("traceparent", [None, "", CANARY, f"00-{REMOTE_TRACE}-zz-01"])
def test_a_traceparent_that_cannot_be_read_begins_a_new_trace(
    spans: InMemorySpanExporter, traceparent: str | None
) -> None:
    with tracing.start_trace("request", traceparent):
        pass
    (request,) = spans.get_finished_spans()
    assert request.parent is None
    assert CANARY not in request.to_json()


def test_a_failed_span_names_the_type_of_the_error_only(spans: InMemorySpanExporter) -> None:
    @tracing.traced("scoring")
    def fail(text: str) -> None:
        raise ValueError(text)

    with pytest.raises(ValueError, match="canary"), tracing.start_trace("request"):
        fail(CANARY)
    for each in spans.get_finished_spans():
        assert each.status.description == "ValueError"
        assert CANARY not in each.to_json()
    assert tracing.span("after").__enter__() is None


def test_a_transaction_is_a_span_without_statement_or_address(spans: InMemorySpanExporter, tmp_path: Any) -> None:
    shop = setup.init_home(tmp_path / "home")
    with tracing.start_trace("request"), engine.read_transaction(shop) as connection:
        connection.exec_driver_sql("select 1")
    transaction, _ = spans.get_finished_spans()
    assert transaction.name == "database transaction"
    assert transaction.attributes == {"db.system.name": "sqlite"}


def test_without_an_endpoint_nothing_is_imported() -> None:
    code = """
import sys
from customers import tracing
with tracing.start_trace("request") as first, tracing.span("scoring") as second:
    print(tracing.is_enabled(), first, second, any(name.startswith("opentelemetry") for name in sys.modules))
"""
    assert run_python(code).split() == ["False", "None", "None", "False"]
    disabled = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}
    assert run_python(code, **disabled).split() == ["False", "None", "None", "False"]


def test_without_the_extra_an_endpoint_is_answered_with_a_warning() -> None:
    code = """
import sys
sys.modules["opentelemetry.exporter.otlp.proto.http.trace_exporter"] = None
from customers import tracing
print(tracing.is_enabled())
"""
    output = run_python(code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert "False" in output
    assert "extra otel" in output


def test_spans_arrive_at_the_endpoint() -> None:
    """A process that ends sends what it has recorded, to the path that OTLP over HTTP prescribes."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    requests: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        code = """
from customers import tracing
with tracing.start_trace("request"), tracing.span("scoring", model="churn"):
    pass
"""
        address = f"http://127.0.0.1:{server.server_port}"
        run_python(code, OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_EXPORTER_OTLP_COMPRESSION="none")
        server.shutdown()
    assert [path for path, _ in requests] == ["/v1/traces"]
    assert b"scoring" in requests[0][1]
