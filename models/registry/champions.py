"""The champions of a folder, held in memory and reloaded after a promotion."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from customers.shop import durable_files
from customers.shop.durable_files import FileFingerprint
from models.registry import bundle, champion_checks, golden
from models.registry.bundle import Champion, ChampionPointer, InvalidBundle

log = logging.getLogger("regulars.champions")


@dataclass
class _ChampionSlot:
    champion: Champion | None = None
    error: str | None = None
    fingerprint: FileFingerprint | None = None
    checked_at: float = float("-inf")
    failed_at: float = float("-inf")
    lock: threading.Lock = field(default_factory=threading.Lock)
    awaits_check: bool = False


class Champions:
    """The champions of a folder, held in memory; a promotion is noticed within check_seconds, without a restart.

    A new champion is verified and loaded beside the old one, by one thread, and then replaces it at once. Those with
    golden predictions are first compared with them in a process of their own. If any of that fails, the old one stays,
    `errors` holds the reason, and loading is tried again every retry_seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        check_seconds: float = 0.5,
        retry_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._check_seconds = check_seconds
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._slots: dict[str, _ChampionSlot] = {}
        self._slots_lock = threading.Lock()
        self._checker: threading.Thread | None = None

    def get(self, name: str) -> Champion | None:
        """The current champion of this name; None where none could be opened yet."""
        slot = self._slot(name)
        if self._clock() - slot.checked_at >= self._check_seconds:
            with _try_lock(slot.lock, blocking=slot.champion is None) as acquired:
                if acquired and self._clock() - slot.checked_at >= self._check_seconds:
                    self._check(name, slot)
        return slot.champion

    @property
    def errors(self) -> dict[str, str]:
        """Why the newest champion could not be opened, by name; empty where all could be."""
        return {name: slot.error for name, slot in list(self._slots.items()) if slot.error}

    @property
    def is_checking(self) -> bool:
        """Whether a new champion is being compared with its golden predictions, while the present one serves."""
        return any(slot.awaits_check for slot in list(self._slots.values()))

    def _slot(self, name: str) -> _ChampionSlot:
        with self._slots_lock:
            return self._slots.setdefault(name, _ChampionSlot())

    def watch(self, names: Iterable[str]) -> None:
        """Notice promotions from now on, also while nobody asks for a champion; the thread ends with the process."""
        threading.Thread(target=self._watch, args=(tuple(names),), daemon=True, name="champions").start()

    def _watch(self, names: Sequence[str]) -> None:
        while True:
            for name in names:
                try:
                    self.get(name)
                except Exception as error:  # the present champion serves, and the next look may succeed
                    log.error("the champion of %s cannot be looked at: %s", name, type(error).__name__)
            time.sleep(self._check_seconds)

    def _check(self, name: str, slot: _ChampionSlot) -> None:
        now = self._clock()
        fingerprint = durable_files.read_fingerprint(self._folder / f"{name}.json")
        if fingerprint != slot.fingerprint or (slot.error and now - slot.failed_at >= self._retry_seconds):
            if self._needs_check(name, slot):
                self._begin_check(slot)
            else:
                self._reload(name, slot)
                slot.fingerprint, slot.failed_at = fingerprint, now
        slot.checked_at = now

    def _needs_check(self, name: str, slot: _ChampionSlot) -> bool:
        """Whether a champion serves, and the new one can be checked before it takes over: that takes seconds."""
        try:
            pointer = bundle.read_pointer(self._folder, name)
        except InvalidBundle:
            return False
        return bool(slot.champion and pointer and golden.has_golden(self._folder / name / pointer.version))

    def _begin_check(self, slot: _ChampionSlot) -> None:
        with self._slots_lock:
            slot.awaits_check = True
            if self._checker is None:
                checker = threading.Thread(target=self._check_waiting, daemon=True, name="champion checks")
                checker.start()
                self._checker = checker

    def _check_waiting(self) -> None:
        """Check all champions that wait for it in a process of their own, then load each; the present ones serve."""
        try:
            self._check_all_waiting()
        except Exception as error:  # it is tried again at the next look
            log.error("the check of new champions has ended with %s", type(error).__name__)
            with self._slots_lock:
                self._checker = None

    def _check_all_waiting(self) -> None:
        while True:
            with self._slots_lock:
                waiting = {name: slot for name, slot in self._slots.items() if slot.awaits_check}
                if not waiting:
                    self._checker = None
                    return
            # Taken before the pointers are read: what is read may be newer, and is then read once more.
            fingerprints = {name: durable_files.read_fingerprint(self._folder / f"{name}.json") for name in waiting}
            for name, pointer, refusal in self._find_verdicts(waiting):
                slot = waiting[name]
                self._reload(name, slot, pointer, refusal)
                slot.fingerprint, slot.failed_at, slot.awaits_check = fingerprints[name], self._clock(), False

    def _find_verdicts(
        self, slots: Mapping[str, _ChampionSlot]
    ) -> Iterator[tuple[str, ChampionPointer | None, Exception | None]]:
        """Each name with its pointer, as soon as it is certain whether that may be loaded, and the reason if not."""
        present_versions: dict[ChampionPointer, str] = {}
        for name, slot in slots.items():
            try:
                pointer = bundle.read_pointer(self._folder, name)
            except InvalidBundle as error:
                yield name, None, error
                continue
            if pointer is None or slot.champion is None or slot.champion.version == pointer.version:
                yield name, pointer, None
            else:
                present_versions[pointer] = slot.champion.version
        try:
            for pointer, fault in champion_checks.check_all(self._folder, present_versions):
                del present_versions[pointer]
                yield pointer.name, pointer, fault
        except Exception as error:  # no process could be started, or the disk is full: it is tried again
            yield from ((pointer.name, pointer, error) for pointer in present_versions)

    def _reload(
        self,
        name: str,
        slot: _ChampionSlot,
        checked: ChampionPointer | None = None,
        refusal: Exception | None = None,
    ) -> None:
        """Load the champion that was checked or that the pointer names, or keep the present one for a reason."""
        try:
            if refusal is not None:
                raise refusal
            champion = self._open(name, checked)
        # Whatever is wrong with the new bundle, the last champion continues to serve.
        except Exception as error:
            slot.error = (
                str(error) if isinstance(error, InvalidBundle) else f"it cannot be loaded: {type(error).__name__}"
            )
            slot.champion = slot.champion or self._open_last_verified(name)
            return
        if champion is None and slot.champion is not None:
            slot.error = "its pointer is gone; publish the champion again"
            return
        slot.error, slot.champion = None, champion

    def _open(self, name: str, checked: ChampionPointer | None) -> Champion | None:
        """The champion that was checked, or of the pointer. Raises InvalidBundle where it must not serve."""
        pointer = checked or bundle.read_pointer(self._folder, name)
        if pointer is None:
            return None
        if fault := champion_checks.read_fault(self._folder, pointer):
            raise InvalidBundle(fault)
        return bundle.open_version(self._folder, pointer)

    def _open_last_verified(self, name: str) -> Champion | None:
        """The last version that passed its check, for a worker that starts while the newest one is refused."""
        try:
            pointer = bundle.read_pointer(self._folder, name, suffix=champion_checks.VERIFIED_SUFFIX)
            return bundle.open_version(self._folder, pointer) if pointer else None
        except InvalidBundle:
            return None


@contextmanager
def _try_lock(lock: threading.Lock, *, blocking: bool) -> Iterator[bool]:
    acquired = lock.acquire(blocking=blocking)
    try:
        yield acquired
    finally:
        if acquired:
            lock.release()
