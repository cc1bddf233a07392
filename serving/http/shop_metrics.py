"""State of the shop as Prometheus gauges, read when /metrics is asked: ages of night, models, features and data.

Nothing in them is about a customer. What cannot be read is left out and counted as not readable, so that /metrics
answers while the database is away.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from threading import Lock

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from customers.ledger import refresh_queue
from customers.reports import freshness
from serving.http import problems
from serving.runtime import MODEL_NAMES, ServerRuntime

log = logging.getLogger("regulars.metrics")

HOLD_SECONDS = 5.0


class ShopCollector(Collector):
    """Gauges of the shop that this process serves; they are read at most once in `hold_seconds`.

    `get_runtime` is called at each reading: while it fails, as before the server has started, no gauge is readable.
    """

    def __init__(
        self,
        get_runtime: Callable[[], ServerRuntime],
        *,
        hold_seconds: float = HOLD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._get_runtime = get_runtime
        self._hold_seconds = hold_seconds
        self._clock = clock
        self._lock = Lock()
        self._families: list[GaugeMetricFamily] = []
        self._read_at = float("-inf")

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: registering must not read the shop."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """All gauges, and for each source whether it could be read."""
        with self._lock:
            if self._clock() - self._read_at >= self._hold_seconds:
                self._families = self._read_all()
                self._read_at = self._clock()
            return self._families

    def _read_all(self) -> list[GaugeMetricFamily]:
        readable = GaugeMetricFamily(
            "regulars_source_readable", "Whether the gauges of a source could be read.", labels=["source"]
        )
        families = [readable]
        for source, read in SOURCES.items():
            try:
                families += list(read(self._get_runtime()))
                readable.add_metric([source], 1)
            # Whatever is wrong with one source, the others are reported.
            except Exception as error:
                log.warning("the metrics of the %s cannot be read: %s", source, problems.describe_traceback(error))
                readable.add_metric([source], 0)
        return families


def _read_database(runtime: ServerRuntime) -> Iterator[GaugeMetricFamily]:
    state, now = freshness.read_freshness(runtime.shop), runtime.now()
    yield from _age(
        "regulars_night",
        "Seconds since the last nightly run finished, by the real clock.",
        datetime.now(UTC),
        state.last_run_finished_at,
    )
    yield from _age(
        "regulars_features",
        "Seconds since the time up to which the last finished nightly run has read records, by the shop's clock.",
        now,
        state.last_run_as_of,
    )
    yield from _age("regulars_last_sale", "Seconds since the last sale, by the shop's clock.", now, state.last_sold_at)
    yield GaugeMetricFamily(
        "regulars_pending_erasures",
        "Erased customers whose features are not deleted everywhere yet.",
        value=state.pending_erasures,
    )


def _read_refresh_queue(runtime: ServerRuntime) -> Iterator[GaugeMetricFamily]:
    oldest = refresh_queue.oldest_pending(runtime.shop)
    yield GaugeMetricFamily(
        "regulars_refresh_backlog",
        "Customers with new records whose features and scores are not refreshed yet.",
        value=refresh_queue.count_pending(runtime.shop),
    )
    yield GaugeMetricFamily(
        "regulars_refresh_lag_seconds",
        "Seconds since the oldest record whose customer is not refreshed yet; 0 without any.",
        value=0.0 if oldest is None else max(0.0, time.time() - oldest / 1e6),
    )


def _read_champions(runtime: ServerRuntime) -> Iterator[GaugeMetricFamily]:
    age = GaugeMetricFamily(
        "regulars_champion_age_seconds", "Seconds since the champion was trained, by the real clock.", labels=["model"]
    )
    version = GaugeMetricFamily(
        "regulars_champion_info", "The champion that serves; always 1.", labels=["model", "version"]
    )
    refused = GaugeMetricFamily(
        "regulars_champion_refused",
        "Whether the newest champion was refused and an older one serves.",
        labels=["model"],
    )
    for name in MODEL_NAMES:
        champion = runtime.champions.get(name)
        refused.add_metric([name], int(name in runtime.champions.errors))
        if champion is None:
            continue
        version.add_metric([name, str(champion.version)], 1)
        if trained_at := champion.facts.get("trained_at"):
            age.add_metric([name], (datetime.now(UTC) - datetime.fromisoformat(trained_at)).total_seconds())
    yield from (age, version, refused)


def _read_disk(runtime: ServerRuntime) -> Iterator[GaugeMetricFamily]:
    usage = shutil.disk_usage(runtime.shop.home)
    yield GaugeMetricFamily("regulars_home_free_bytes", "Free bytes on the disk of the home.", value=usage.free)
    yield GaugeMetricFamily("regulars_home_size_bytes", "Size of the disk of the home, in bytes.", value=usage.total)


#: What is read, by source; each can fail by itself.
SOURCES: dict[str, Callable[[ServerRuntime], Iterator[GaugeMetricFamily]]] = {
    "database": _read_database,
    "refresh_queue": _read_refresh_queue,
    "champions": _read_champions,
    "disk": _read_disk,
}


def _age(name: str, documentation: str, now: datetime, then: datetime | None) -> Iterator[GaugeMetricFamily]:
    """An age in seconds; nothing where the event has not happened yet."""
    if then is not None:
        yield GaugeMetricFamily(f"{name}_age_seconds", documentation, value=(now - then).total_seconds())
