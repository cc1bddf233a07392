"""Counting at the door: how often each question is asked, how long it takes, how often we know nothing.

Labels are route templates and model names, never a path, a customer or a key. With several workers each
writes its own file under PROMETHEUS_MULTIPROC_DIR, and any of them can add them all up.
"""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.responses import Response

UNMATCHED = "unmatched"
# prometheus_client decides once, on import, whether it counts in files. The environment may say otherwise by
# now: Feast, imported after it, sets the variable.
_IS_MULTIPROCESS = values.ValueClass is not values.MutexValue
_REGISTRY = CollectorRegistry()
_BUCKETS_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_request_counter = Counter("regulars_requests", "Requests answered.", ("route", "method", "status"), registry=_REGISTRY)
_latency_seconds = Histogram(
    "regulars_request_seconds",
    "Seconds from the first byte asked to the last byte answered.",
    ("route",),
    buckets=_BUCKETS_SECONDS,
    registry=_REGISTRY,
)
_answer_counter = Counter("regulars_answers", "Customers answered for.", ("question",), registry=_REGISTRY)
_fallback_counter = Counter(
    "regulars_fallbacks",
    "Customers answered for with what holds for all, unknown ones included.",
    ("question",),
    registry=_REGISTRY,
)


def count_request(route: str, method: str, status: int, seconds: float) -> None:
    """Count one request under its template."""
    _request_counter.labels(route, method, str(status)).inc()
    _latency_seconds.labels(route).observe(seconds)


def count_answers(question: str, customers: int, fallbacks: int) -> None:
    """Count the customers of one answer, and those of them who got what holds for all."""
    _answer_counter.labels(question).inc(customers)
    _fallback_counter.labels(question).inc(fallbacks)


def render_metrics() -> Response:
    """All counts of all workers, as Prometheus reads them."""
    return Response(generate_latest(_collect_registry()), media_type=CONTENT_TYPE_LATEST)


def _collect_registry() -> CollectorRegistry:
    if not _IS_MULTIPROCESS:
        return _REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return registry
