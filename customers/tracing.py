"""Traces: spans of a request, its scoring, its feature reads and its transactions, sent by OpenTelemetry (OTLP).

They are made only where the extra `otel` is installed and OTEL_EXPORTER_OTLP_ENDPOINT is set; otherwise nothing is
imported and a span costs less than a microsecond. A span has no text of an error and no value of a statement.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache, wraps
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ParamSpec, TypeVar

log = logging.getLogger("regulars.tracing")

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
# Not OpenTelemetry's own current span: a framework around us may have made one that is not recorded.
_current: ContextVar[Any] = ContextVar("span", default=None)


def is_enabled() -> bool:
    """Whether traces are sent: an endpoint is set, the extra is installed, and OTEL_SDK_DISABLED is not true."""
    return get_tracer() is not None


@contextmanager
def start_trace(name: str, traceparent: str | None = None) -> Iterator[Any]:
    """The first span of a trace, or of our part of the trace that a W3C traceparent header names.

    Yields the span, or None where traces are not sent.
    """
    tracer = get_tracer()
    if tracer is None:
        yield None
        return
    with _record(tracer, name, _remote_context(traceparent), {}) as recorded:
        yield recorded


def span(name: str, **attributes: str | int | bool) -> AbstractContextManager[Any]:
    """A span inside the current trace; outside a trace nothing is recorded."""
    parent = _current.get()
    return nullcontext() if parent is None else _record_child(parent, name, attributes)


def traced(name: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """A decorator: each call of the function is a span."""

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            with span(name):
                return function(*args, **kwargs)

        return call

    return decorate


@cache
def get_tracer() -> Any:
    """The tracer of this process; None where traces are not sent."""
    if not any(map(os.environ.get, ENDPOINT_VARIABLES)) or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("no traces are sent: OpenTelemetry is not installed; install regulars with its extra otel")
        return None
    return build_tracer(BatchSpanProcessor(OTLPSpanExporter()))


def build_tracer(processor: Any) -> Any:
    """A tracer whose spans go to a span processor; OpenTelemetry's own variables set sampling and resource."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    resource = Resource.create(
        {"service.name": os.environ.get("OTEL_SERVICE_NAME", "regulars"), "service.version": _package_version()}
    )
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(processor)
    return provider.get_tracer("regulars")


def _record_child(parent: Any, name: str, attributes: dict[str, Any]) -> AbstractContextManager[Any]:
    from opentelemetry.context import Context
    from opentelemetry.trace import set_span_in_context

    return _record(get_tracer(), name, set_span_in_context(parent, Context()), attributes)


@contextmanager
def _record(tracer: Any, name: str, context: Any, attributes: dict[str, Any]) -> Iterator[Any]:
    from opentelemetry.trace import StatusCode

    recorded = tracer.start_span(name, context=context, attributes=attributes)
    token = _current.set(recorded)
    try:
        yield recorded
    except BaseException as error:
        recorded.set_status(StatusCode.ERROR, type(error).__name__)
        raise
    finally:
        _current.reset(token)
        recorded.end()


def _remote_context(traceparent: str | None) -> Any:
    """The context of the caller's trace; a tracestate is not read, since its text is free."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent or ""}, Context())


def _package_version() -> str:
    try:
        return version("regulars")
    except PackageNotFoundError:  # a built bento carries the code without installing it
        return "0"
