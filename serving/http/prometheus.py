"""Prometheus metrics: requests, their latency, how many predictions are fallbacks, and what collectors add.

Labels are route templates and model names, never a path, a customer or a key. With several workers each
writes its own file under PROMETHEUS_MULTIPROC_DIR, and any of them can sum them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    Metric,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.responses import Response

UNMATCHED = "unmatched"
# prometheus_client decides on import whether it counts in files. The environment may differ by now: Feast, imported
# after it, sets the variable.
_IS_MULTIPROCESS = values.ValueClass is not values.MutexValue
_REGISTRY = CollectorRegistry()
_BUCKETS_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_request_counter = Counter("regulars_requests", "Requests answered.", ("route", "method", "status"), registry=_REGISTRY)
_latency_seconds = Histogram(
    "regulars_request_seconds",
    "Seconds from the first byte of the request to the last byte of the response.",
    ("route",),
    buckets=_BUCKETS_SECONDS,
    registry=_REGISTRY,
)
_answer_counter = Counter("regulars_answers", "Customers in responses.", ("question",), registry=_REGISTRY)
_fallback_counter = Counter(
    "regulars_fallbacks",
    "Customers in responses who got the population average, unknown customers included.",
    ("question",),
    registry=_REGISTRY,
)

_counts_answers: ContextVar[bool] = ContextVar("counts_answers", default=True)

#: What is read when the metrics are asked, and counted in no file.
_collectors: list[Collector] = []


def add_collector(collector: Collector) -> None:
    """Add a collector whose metrics are read whenever /metrics is asked, by the worker that answers."""
    _collectors.append(collector)


def count_request(route: str, method: str, status: int, seconds: float) -> None:
    """Count one request under its route template."""
    _request_counter.labels(route, method, str(status)).inc()
    _latency_seconds.labels(route).observe(seconds)


def count_answers(question: str, customers: int, fallbacks: int) -> None:
    """Count the customers of one response, and those of them who got the population average."""
    if not _counts_answers.get():
        return
    _answer_counter.labels(question).inc(customers)
    _fallback_counter.labels(question).inc(fallbacks)


@contextmanager
def without_counting() -> Iterator[None]:
    """Count no answers inside the block: nobody has asked for them."""
    token = _counts_answers.set(False)
    try:
        yield
    finally:
        _counts_answers.reset(token)


def render_metrics() -> Response:
    """The metrics of all workers, in the text format of Prometheus."""
    return Response(generate_latest(_collect_registry()), media_type=CONTENT_TYPE_LATEST)


def _collect_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    if _IS_MULTIPROCESS:
        registry.register(_OwnMetrics())
    else:
        registry.register(_REGISTRY)
    for collector in _collectors:
        registry.register(collector)
    return registry


class _OwnMetrics(Collector):
    """The metrics of all workers without those of libraries: Feast counts into the same folder."""

    def collect(self) -> Iterable[Metric]:
        return [family for family in MultiProcessCollector(None).collect() if family.name.startswith("regulars_")]
