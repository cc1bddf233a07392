"""What a worker knows of the shop between two commits: the state of its catalogue, and of the customers asked about.

A request reads one number, which changes with every commit; only then are the counters of the catalogue compared. What
depends on products, offers or champions is made again in a worker thread, before the request that noticed goes on.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from threading import Lock

from customers.database import direct_reads
from customers.database.change_counters import LOADS_COUNTER
from customers.scores import current_scores
from customers.scores.current_scores import CustomerStatus, RunWatermark
from serving.lookup.catalogue_state import CatalogueReader, CatalogueState, TableBuilder
from serving.runtime import ServerRuntime

#: So many customers' statuses are remembered between two commits.
MAX_STATUSES = 100_000
_COUNTERS = "select month, changed_no from ledger_months"


class ShopState:
    """The state of one shop in this process."""

    def __init__(self, runtime: ServerRuntime, builders: Mapping[str, TableBuilder]) -> None:
        self.runtime = runtime
        self._catalogue_reader = CatalogueReader(runtime, builders)
        self._reader = direct_reads.get_reader(runtime.shop)
        self._version: Hashable = None
        self._counters: dict[str, int] = {}
        self._statuses: dict[RunWatermark, dict[str, CustomerStatus | None]] = {}
        self._interaction_counts: dict[int, tuple[int, int]] = {}
        self._now: tuple[Hashable, datetime] | None = None
        self._catalogue: CatalogueState | None = None
        self._lock = Lock()

    def notice_commits(self, version: Hashable = None) -> None:
        """Forget what may have changed if anything was committed; `version` is that of the database, if it was read."""
        version = version or self._reader.read_version()
        if version != self._version:
            self._counters = {name: int(number) for name, number in self._reader.read(_COUNTERS)}
            self._statuses, self._interaction_counts = {}, {}
            self._version = version

    @property
    def now(self) -> datetime:
        """The current time by the shop's clock."""
        if self.runtime.shop.clock == "real":
            return self.runtime.now()
        version, now = self._version, self._now
        if now is None or now[0] != version:
            now = self._now = version, self.runtime.now()
        return now[1]

    def get_catalogue(self) -> CatalogueState | None:
        """The state of the catalogue; None where it must be made again by `refresh`, which takes some time."""
        current = self._catalogue
        is_current = current and self._catalogue_reader.is_current(current, self._counters, lambda: self.now)
        return current if is_current else None

    @property
    def last_catalogue(self) -> CatalogueState | None:
        """The state of the catalogue that was made last, whatever has changed since."""
        return self._catalogue

    @property
    def last_load_count(self) -> int:
        """The counter of loads from files, as read last."""
        return self._counters.get(LOADS_COUNTER, 0)

    @property
    def last_now(self) -> datetime:
        """As `now`, without the database: of a clock that is read from it, the time that was read last."""
        if self._now is None or self.runtime.shop.clock == "real":
            return self.runtime.now()
        return self._now[1]

    def refresh(self) -> CatalogueState:
        """Make the state of the catalogue again; several requests at once do it once."""
        with self._lock:
            current = self.get_catalogue()
            current = current or self._catalogue_reader.read(self._counters, self.now, self._catalogue)
            self._catalogue = current
            return current

    def find_statuses(self, customer_ids: Sequence[str], watermark: RunWatermark) -> list[CustomerStatus | None]:
        """The status of each customer since the night of the watermark; None where the id needs a closer look."""
        statuses = self._statuses.setdefault(watermark, {})
        missing = [name for name in dict.fromkeys(customer_ids) if name not in statuses]
        if missing:
            if len(statuses) > MAX_STATUSES:
                statuses = self._statuses[watermark] = {}
                missing = list(dict.fromkeys(customer_ids))
            current = current_scores.find_statuses(self._reader, missing, watermark)
            statuses.update({name: current.get(name) for name in missing})
        return [statuses[name] for name in customer_ids]

    def read_interaction_counts(self, customer_keys: Sequence[int]) -> list[tuple[int, int]]:
        """The counts of each customer's interactions now (see `current_scores.count_interactions`), until a commit."""
        counts_by_key = self._interaction_counts
        missing = [key for key in dict.fromkeys(customer_keys) if key not in counts_by_key]
        if missing:
            if len(counts_by_key) > MAX_STATUSES:
                counts_by_key = self._interaction_counts = {}
                missing = list(dict.fromkeys(customer_keys))
            counts = current_scores.read_interaction_counts(self._reader, missing)
            counts_by_key.update({key: counts.get(key, (0, 0)) for key in missing})
        return [counts_by_key[key] for key in customer_keys]
