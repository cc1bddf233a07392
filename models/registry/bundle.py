"""A bundle: a trained model as plain files, each with its checksum; only one that verifies is ever opened.

A corrupt model file can kill the process that parses it, so checksums come first. Promotion copies a bundle
beside the others, verifies the copy, and then moves one small pointer file: readers see the old champion or
the new one, never half of either.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import base

if TYPE_CHECKING:
    from models.base import Model

#: Who may be opened: a module of models/ and its learners. A bundle names one of these, never an import path.
_ROOMS = {
    "recommender": ("Recommender",),
    "bestsellers": ("Popularity", "DecayedFrequency"),
    "churn": ("Churn",),
    "seasoned": ("SeasonedBgNbd",),
    "timing": ("Timing",),
    "hazard": ("Hazard",),
    "offers": ("Offers", "AffinityRate"),
    "restock": ("Restock",),
    "stocks": ("OwnRate", "PairRhythm"),
    "value": ("Value",),
    "spending": ("BgNbdGammaGamma", "RateValue"),
    "uplift": ("Uplift",),
    "baselines": ("RecencyChurn", "RfmLogistic", "BgNbdChurn", "BgNbdTiming", "KaplanMeierTiming"),
}
LEARNERS = {f"{room}.{name}": f"models.{room}:{name}" for room, names in _ROOMS.items() for name in names}

MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 1_000_000
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class BadBundle(Exception):
    """A bundle that must not be opened; the message says why."""


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself: its learner, facts about its making, and every file's sha256 and size."""

    learner: str
    facts: dict[str, Any]
    files: dict[str, tuple[str, int]]
    sha256: str


@dataclass(frozen=True)
class Champion:
    """A model that answers, and what is known about it."""

    name: str
    version: str
    learner: str
    facts: dict[str, Any] = field(repr=False)
    model: Any = field(repr=False)


def write(model: Model, folder: Path, *, facts: Mapping[str, Any]) -> Manifest:
    """Save a model into a new or empty folder; the manifest comes last, so a half-written bundle has none."""
    learner = _name_of(model)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BadBundle(f"{folder.name} is not empty; write a bundle into a new folder")
    model.save(folder)
    files = {file.name: _measure(file) for file in sorted(folder.iterdir())}
    listed = {name: {"sha256": sha256, "size": size} for name, (sha256, size) in files.items()}
    content = {"learner": learner, "facts": dict(facts), "files": listed}
    _write_whole(folder / MANIFEST, json.dumps(content, indent=1, sort_keys=True, allow_nan=False))
    return verify(folder)


def _name_of(model: object) -> str:
    name = f"{type(model).__module__.removeprefix('models.')}.{type(model).__qualname__}"
    if name not in LEARNERS:
        raise BadBundle(f"{name} is not a learner of this house; add it to the table in models/bundle.py")
    return name


def verify(folder: Path) -> Manifest:
    """Check a bundle without opening it: its manifest, a known learner, and every file, no more and no fewer.

    Raises BadBundle, also for links, folders, and names that are not plain.
    """
    manifest = _read_manifest(folder)
    present = {entry.name for entry in os.scandir(folder)} - {MANIFEST}
    if missing := sorted(set(manifest.files) - present):
        raise BadBundle(f"files are missing: {', '.join(missing)}")
    if unlisted := sorted(present - set(manifest.files)):
        raise BadBundle(f"files are not in the manifest: {', '.join(unlisted)}")
    for name, expected in manifest.files.items():
        if _size(folder / name) != expected[1] or _measure(folder / name) != expected:
            raise BadBundle(f"{name} has changed since it was written")
    return manifest


def open_model(folder: Path) -> tuple[Manifest, Any]:
    """Verify a bundle, then load its model. Raises BadBundle for one that another version of the code has saved."""
    manifest = verify(folder)
    room, learner = LEARNERS[manifest.learner].split(":")
    try:
        return manifest, getattr(import_module(room), learner).load(folder)
    except (KeyError, FileNotFoundError, base.Unfit) as reason:
        raise BadBundle(f"{manifest.learner} was saved by another version of regulars; run: regulars run") from reason


def _read_manifest(folder: Path) -> Manifest:
    if not _is_folder(folder):
        raise BadBundle("there is no bundle here")
    if _size(folder / MANIFEST) > _LARGEST_MANIFEST:
        raise BadBundle("the manifest is too large")
    content = (folder / MANIFEST).read_bytes()
    try:
        said = json.loads(content)
        files = {str(name): (str(file["sha256"]), int(file["size"])) for name, file in said["files"].items()}
        learner, facts = said["learner"], said["facts"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadBundle("the manifest cannot be read") from None
    if odd := [name for name in files if not _PLAIN.fullmatch(name)]:
        raise BadBundle(f"the manifest lists {len(odd)} names that are not plain file names")
    if not isinstance(learner, str) or learner not in LEARNERS or not isinstance(facts, dict):
        raise BadBundle("the manifest names no learner of this house")
    return Manifest(learner, facts, files, hashlib.sha256(content).hexdigest())


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _size(file: Path) -> int:
    try:
        status = file.lstat()
    except OSError:
        raise BadBundle(f"{file.name} is missing") from None
    if not stat.S_ISREG(status.st_mode):
        raise BadBundle(f"{file.name} is not a plain file")
    return status.st_size


def _measure(file: Path) -> tuple[str, int]:
    size = _size(file)
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest(), size


def publish(folder: Path, champions: Path, name: str, version: str, *, keep: int = 3) -> Path:
    """Make a bundle the champion that servers open, and return where it now lies.

    A killed publish leaves the pointer on the old champion or on the new one, both whole; the next one clears
    what it left behind. A version never changes: publishing other content under its name is refused. The
    `keep` versions published last stay, for a server that is just opening one of them.
    """
    for word in (name, version):
        if not _PLAIN.fullmatch(word):
            raise BadBundle("a model's name and version are plain words: letters, digits, dots, dashes")
    manifest = verify(folder)
    shelf = champions / name
    shelf.mkdir(parents=True, exist_ok=True)
    clear_leftovers(shelf)
    home = shelf / version
    if not _holds(home, manifest):
        _place(folder, home, manifest)
    os.utime(home)
    pointer = {"name": name, "version": version, "manifest_sha256": manifest.sha256}
    _write_whole(champions / f"{name}.json", json.dumps(pointer, sort_keys=True))
    _retire(shelf, home, keep)
    return home


def _holds(home: Path, manifest: Manifest) -> bool:
    """Whether this version already lies there, whole. One that has been damaged may be replaced, no other."""
    if not os.path.lexists(home):
        return False
    try:
        found = verify(home)
    except BadBundle:
        return False
    if found.sha256 != manifest.sha256:
        raise BadBundle(f"version {home.name} is already published with other content; record a new version")
    return True


def _place(folder: Path, home: Path, manifest: Manifest) -> None:
    beside = home.parent / f".{home.name}.{os.getpid()}"
    shutil.copytree(folder, beside, symlinks=True)
    if verify(beside) != manifest:
        raise BadBundle("the bundle changed while it was copied")
    for file in beside.iterdir():
        _sync(file)
    if os.path.lexists(home):
        os.rename(home, home.parent / f".{home.name}.damaged.{os.getpid()}")
    os.rename(beside, home)
    _sync(home.parent)
    clear_leftovers(home.parent)


def clear_leftovers(shelf: Path) -> None:
    """Remove what killed programs left half-made in a folder: names that begin with a dot and end with their number.

    What another living program is making stays; what this one made before it asked goes.
    """
    for entry in shelf.glob(".*"):
        owner = entry.name.rpartition(".")[2]
        if owner.isdigit() and (int(owner) == os.getpid() or not _alive(int(owner))):
            _remove(entry)


def _remove(entry: Path) -> None:
    if _is_folder(entry):
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _retire(shelf: Path, current: Path, keep: int) -> None:
    versions = [entry for entry in shelf.iterdir() if not entry.name.startswith(".") and entry != current]
    versions.sort(key=lambda entry: entry.lstat().st_mtime_ns, reverse=True)
    for old in versions[max(keep - 1, 0) :]:
        _remove(old)


def _write_whole(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text + "\n", encoding="utf-8")
    _sync(beside)
    os.replace(beside, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_champion(champions: Path, name: str) -> Champion | None:
    """The champion that the pointer names, verified and loaded; None where none was ever published.

    Raises BadBundle where the pointer or the bundle is not what publish left.
    """
    file = champions / f"{name}.json"
    if not os.path.lexists(file):
        return None
    version, sha256 = _read_pointer(file)
    manifest, model = open_model(champions / name / version)
    if manifest.sha256 != sha256:
        raise BadBundle(f"version {version} of {name} is not the one that was published")
    return Champion(name, version, manifest.learner, manifest.facts, model)


def _read_pointer(file: Path) -> tuple[str, str]:
    if _size(file) > _LARGEST_MANIFEST:
        raise BadBundle(f"{file.name} is too large")
    try:
        pointer = json.loads(file.read_bytes())
        version, sha256 = pointer["version"], pointer["manifest_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadBundle(f"{file.name} cannot be read; publish the champion again") from None
    if not isinstance(version, str) or not _PLAIN.fullmatch(version):
        raise BadBundle(f"{file.name} names no version; publish the champion again")
    return version, str(sha256)


@dataclass
class _Held:
    champion: Champion | None = None
    error: str | None = None
    seen: tuple[int, ...] | None = None
    looked_at: float = float("-inf")
    failed_at: float = float("-inf")
    lock: threading.Lock = field(default_factory=threading.Lock)


class Champions:
    """The champions of a folder, kept open; a promotion is noticed within `every` seconds, without a restart.

    A new champion is verified and loaded beside the old one, by one thread, and then takes its place at once.
    Where that fails the old one goes on, `errors` says why, and it is tried again every `retry` seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: float = 1.0,
        retry: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._every, self._retry, self._clock = folder, every, retry, clock
        self._held: dict[str, _Held] = {}
        self._adding = threading.Lock()

    def get(self, name: str) -> Champion | None:
        """The champion of this name as it now stands; None where there is none yet that could be opened."""
        held = self._of(name)
        if self._clock() - held.looked_at >= self._every:
            with _if_free(held.lock, wait=held.champion is None) as mine:
                if mine and self._clock() - held.looked_at >= self._every:
                    self._look(name, held)
        return held.champion

    @property
    def errors(self) -> dict[str, str]:
        """Why the newest champion of a name could not be opened; empty where all is well."""
        return {name: held.error for name, held in self._held.items() if held.error}

    def _of(self, name: str) -> _Held:
        with self._adding:
            return self._held.setdefault(name, _Held())

    def _look(self, name: str, held: _Held) -> None:
        now = self._clock()
        seen = _fingerprint(self._folder / f"{name}.json")
        if seen != held.seen or (held.error and now - held.failed_at >= self._retry):
            self._reload(name, held)
            held.seen, held.failed_at = seen, now
        held.looked_at = now

    def _reload(self, name: str, held: _Held) -> None:
        try:
            fresh = open_champion(self._folder, name)
        # Whatever a bundle does wrong, the last champion answers on.
        except Exception as error:
            held.error = str(error) if isinstance(error, BadBundle) else f"it cannot be loaded: {type(error).__name__}"
            return
        if fresh is None and held.champion is not None:
            held.error = "its pointer is gone; publish the champion again"
            return
        held.champion, held.error = fresh, None


@contextmanager
def _if_free(lock: threading.Lock, *, wait: bool) -> Iterator[bool]:
    mine = lock.acquire(blocking=wait)
    try:
        yield mine
    finally:
        if mine:
            lock.release()


def _fingerprint(file: Path) -> tuple[int, ...]:
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ino, status.st_size
