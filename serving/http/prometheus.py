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
_SHARED = values.ValueClass is not values.MutexValue
_OURS = CollectorRegistry()
_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_requests = Counter("regulars_requests", "Requests answered.", ("route", "method", "status"), registry=_OURS)
_latency = Histogram(
    "regulars_request_seconds",
    "Seconds from the first byte asked to the last byte answered.",
    ("route",),
    buckets=_SECONDS,
    registry=_OURS,
)
_answers = Counter("regulars_answers", "Customers answered for.", ("question",), registry=_OURS)
_fallbacks = Counter(
    "regulars_fallbacks",
    "Customers answered for with what holds for all, unknown ones included.",
    ("question",),
    registry=_OURS,
)


def request(route: str, method: str, status: int, seconds: float) -> None:
    """Count one request under its template."""
    _requests.labels(route, method, str(status)).inc()
    _latency.labels(route).observe(seconds)


def answers(question: str, customers: int, strangers: int) -> None:
    """Count the customers of one answer, and those of them who got what holds for all."""
    _answers.labels(question).inc(customers)
    _fallbacks.labels(question).inc(strangers)


def page() -> Response:
    """All counts of all workers, as Prometheus reads them."""
    return Response(generate_latest(_registry()), media_type=CONTENT_TYPE_LATEST)


def _registry() -> CollectorRegistry:
    if not _SHARED:
        return _OURS
    everybody = CollectorRegistry()
    MultiProcessCollector(everybody)
    return everybody
