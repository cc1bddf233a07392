"""Finds out whether the online store has lost what a nightly run wrote, as Redis without a copy does in a restart."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from customers.shop.durable_files import FileFingerprint, read_fingerprint
from features.store import snapshot_reader

#: So many customers of each view are looked for in the online store, of whom so few may be missing.
SAMPLE_SIZE, MAX_MISSING_SHARE = 25, 0.2
#: How often the online store is looked at.
CHECK_SECONDS = 0.5


class LossDetector:
    """Compares the online store with a sample of the snapshots in a folder.

    `count_missing` counts which of some customers have no row of a view in the online store.
    """

    def __init__(
        self, folder: Path, list_views: Callable[[], Iterable[str]], count_missing: Callable[[str, Sequence[int]], int]
    ) -> None:
        self._folder = folder
        self._list_views = list_views
        self._count_missing = count_missing
        self._sample: tuple[tuple[FileFingerprint, ...], dict[str, list[int]]] | None = None
        self._checked_at, self._has_lost_values = float("-inf"), False

    def check(self) -> bool:
        """Whether many customers of a view are missing; the store is looked at at most every CHECK_SECONDS."""
        now = time.monotonic()
        if now - self._checked_at >= CHECK_SECONDS:
            self._has_lost_values = any(
                self._count_missing(view, keys) > MAX_MISSING_SHARE * len(keys)
                for view, keys in self._sample_customers().items()
            )
            self._checked_at = now
        return self._has_lost_values

    def _sample_customers(self) -> dict[str, list[int]]:
        """Customers of each view that the last nightly run has written; read again only where another one has run."""
        paths = {view: path for view in self._list_views() if (path := self._folder / view / "part.parquet").exists()}
        fingerprints = tuple(map(read_fingerprint, paths.values()))
        if self._sample is None or self._sample[0] != fingerprints:
            latest = {view: snapshot_reader.latest_cutoff(path) for view, path in paths.items()}
            keys = {
                view: snapshot_reader.sample_customers(paths[view], at, SAMPLE_SIZE)
                for view, at in latest.items()
                if at
            }
            self._sample = fingerprints, {view: sample for view, sample in keys.items() if sample}
        return self._sample[1]
