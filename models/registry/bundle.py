"""Model bundles: a trained model as plain files with checksums; only a bundle that verifies is ever opened.

A corrupt model file can kill the process that parses it, so checksums come first. Promotion copies a bundle beside the
others, verifies the copy, and then replaces one small pointer file: readers get the old champion or the new one, never
half of either.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customers.shop import durable_files
from models import base
from models.registry import golden, learners

if TYPE_CHECKING:
    import pandas as pd

    from models.base import Model

MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 1_000_000
#: Ending of the file with the result of a champion's check; see `models.registry.champion_checks`.
VERDICT_SUFFIX = ".check.json"
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class InvalidBundle(Exception):
    """A bundle that must not be opened; the message gives the reason."""


@dataclass(frozen=True)
class Manifest:
    """A bundle's learner id, training facts, and sha256 and size of every file; `sha256` is the manifest's own."""

    learner: str
    facts: dict[str, Any]
    files: dict[str, tuple[str, int]]
    sha256: str


@dataclass(frozen=True, slots=True)
class ChampionPointer:
    """A published version of a model, with the sha256 of its manifest."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Champion:
    """A model that serves, with its name, version, learner id and facts about its training."""

    name: str
    version: str
    learner: str
    facts: dict[str, Any] = field(repr=False)
    model: Any = field(repr=False)


def write(
    model: Model, folder: Path, *, facts: Mapping[str, Any], golden_frame: pd.DataFrame | None = None
) -> Manifest:
    """Save a model into a new or empty folder; the manifest comes last, so that a half-written bundle has none.

    golden_frame: rows of training, with the columns that the model reads; golden predictions are made of them. Raises
    InvalidBundle where the folder is not empty, or the class of the model has no learner id.
    """
    learner = _learner_id(model)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InvalidBundle(f"{folder.name} is not empty; write a bundle into a new folder")
    model.save(folder)
    if golden_frame is not None:
        golden.save(model, golden_frame, folder)
    files = {file.name: _digest_and_size(file) for file in sorted(folder.iterdir())}
    listed = {name: {"sha256": sha256, "size": size} for name, (sha256, size) in files.items()}
    content = {"learner": learner, "facts": dict(facts), "files": listed}
    durable_files.write_atomically(
        folder / MANIFEST, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
    )
    return verify(folder)


def _learner_id(model: object) -> str:
    learner = learners.learner_id(type(model))
    if learner is None:
        name = f"{type(model).__module__}.{type(model).__qualname__}"
        raise InvalidBundle(f"{name} has no learner id; add it to the table in models/registry/learners.py")
    return learner


def verify(folder: Path) -> Manifest:
    """Check a bundle without opening it: manifest, learner id, and every file, no more and no fewer.

    Raises InvalidBundle, also for links, folders and unsafe file names.
    """
    manifest = _read_manifest(folder)
    present = {entry.name for entry in os.scandir(folder)} - {MANIFEST}
    if missing := sorted(set(manifest.files) - present):
        raise InvalidBundle(f"files are missing: {', '.join(missing)}")
    if unlisted := sorted(present - set(manifest.files)):
        raise InvalidBundle(f"files are not in the manifest: {', '.join(unlisted)}")
    for name, expected in manifest.files.items():
        if _size(folder / name) != expected[1] or _digest_and_size(folder / name) != expected:
            raise InvalidBundle(f"{name} has changed since it was written")
    return manifest


def open_model(folder: Path) -> tuple[Manifest, Any]:
    """Verify a bundle, then load its model.

    Raises InvalidBundle for a damaged bundle, or one that another version of the code has saved.
    """
    manifest = verify(folder)
    try:
        return manifest, learners.learner_class(manifest.learner).load(folder)
    except (KeyError, FileNotFoundError, base.MissingFeatures) as error:
        raise InvalidBundle(
            f"{manifest.learner} was saved by another version of regulars; run: regulars run"
        ) from error


def _read_manifest(folder: Path) -> Manifest:
    if not _is_folder(folder):
        raise InvalidBundle("there is no bundle here")
    if _size(folder / MANIFEST) > _MAX_MANIFEST_BYTES:
        raise InvalidBundle("the manifest is too large")
    content = (folder / MANIFEST).read_bytes()
    try:
        parsed = json.loads(content)
        files = {str(name): (str(file["sha256"]), int(file["size"])) for name, file in parsed["files"].items()}
        learner, facts = parsed["learner"], parsed["facts"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidBundle("the manifest cannot be read") from None
    if invalid_names := [name for name in files if not _SAFE_NAME.fullmatch(name)]:
        raise InvalidBundle(f"the manifest lists {len(invalid_names)} names that are not plain file names")
    if not isinstance(learner, str) or learner not in learners.LEARNERS or not isinstance(facts, dict):
        raise InvalidBundle("the manifest names no learner of this version of regulars")
    return Manifest(learner, facts, files, hashlib.sha256(content).hexdigest())


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _size(file: Path) -> int:
    try:
        status = file.lstat()
    except OSError:
        raise InvalidBundle(f"{file.name} is missing") from None
    if not stat.S_ISREG(status.st_mode):
        raise InvalidBundle(f"{file.name} is not a plain file")
    return status.st_size


def _digest_and_size(file: Path) -> tuple[str, int]:
    size = _size(file)
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest(), size


def publish(folder: Path, champions: Path, name: str, version: str, *, keep_versions: int = 3) -> Path:
    """Make a bundle the champion that servers open, and return the folder of its published copy.

    A killed publish leaves the pointer on the old champion or on the new one, both complete; the next one removes its
    leftovers. A version never changes. The keep_versions that were published last remain, for a server that is just
    opening one of them. Raises InvalidBundle for an unsafe name, a bundle that does not verify, and other content
    under the name of a published version.
    """
    for part in (name, version):
        if not _SAFE_NAME.fullmatch(part):
            raise InvalidBundle("a model's name and version are plain words: letters, digits, dots, dashes")
    manifest = verify(folder)
    model_folder = champions / name
    model_folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(model_folder)
    version_folder = model_folder / version
    if not _is_published(version_folder, manifest):
        _copy_into_place(folder, version_folder, manifest)
    os.utime(version_folder)
    # Whoever publishes a refused version again has mended what was wrong, and wants it checked again.
    (champions / f"{name}{VERDICT_SUFFIX}").unlink(missing_ok=True)
    write_pointer(champions, ChampionPointer(name, version, manifest.sha256))
    _delete_old_versions(model_folder, version_folder, keep_versions)
    return version_folder


def _is_published(version_folder: Path, manifest: Manifest) -> bool:
    """Whether this version is already published and intact; a damaged one may be replaced, other content is refused."""
    if not os.path.lexists(version_folder):
        return False
    try:
        published = verify(version_folder)
    except InvalidBundle:
        return False
    if published.sha256 != manifest.sha256:
        raise InvalidBundle(
            f"version {version_folder.name} is already published with other content; record a new version"
        )
    return True


def _copy_into_place(folder: Path, version_folder: Path, manifest: Manifest) -> None:
    staging = version_folder.parent / f".{version_folder.name}.{os.getpid()}"
    shutil.copytree(folder, staging, symlinks=True)
    if verify(staging) != manifest:
        raise InvalidBundle("the bundle changed while it was copied")
    for file in staging.iterdir():
        durable_files.sync(file)
    if os.path.lexists(version_folder):
        os.rename(version_folder, version_folder.parent / f".{version_folder.name}.damaged.{os.getpid()}")
    os.rename(staging, version_folder)
    durable_files.sync(version_folder.parent)
    clear_leftovers(version_folder.parent)


def clear_leftovers(folder: Path) -> None:
    """Remove unfinished files of killed processes: names that begin with a dot and end with a process id.

    Those of another running process remain; those that this process made earlier are removed.
    """
    for entry in folder.glob(".*"):
        owner = entry.name.rpartition(".")[2]
        if owner.isdigit() and (int(owner) == os.getpid() or not _is_running(int(owner))):
            _remove(entry)


def _remove(entry: Path) -> None:
    if _is_folder(entry):
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _delete_old_versions(model_folder: Path, current: Path, keep_versions: int) -> None:
    versions = [entry for entry in model_folder.iterdir() if not entry.name.startswith(".") and entry != current]
    versions.sort(key=lambda entry: entry.lstat().st_mtime_ns, reverse=True)
    for old in versions[max(keep_versions - 1, 0) :]:
        _remove(old)


def open_champion(champions: Path, name: str) -> Champion | None:
    """The champion that the pointer names, verified and loaded; None where none was ever published.

    Raises InvalidBundle where pointer or bundle are not what `publish` wrote.
    """
    pointer = read_pointer(champions, name)
    return open_version(champions, pointer) if pointer else None


def read_pointer(champions: Path, name: str, *, suffix: str = "") -> ChampionPointer | None:
    """The version that the pointer NAME.json (or NAME + suffix + .json) names; None where there is none.

    Raises InvalidBundle for a file that `publish` has not written.
    """
    file = champions / f"{name}{suffix}.json"
    if not os.path.lexists(file):
        return None
    version, sha256 = _read_pointer(file)
    return ChampionPointer(name, version, sha256)


def write_pointer(champions: Path, pointer: ChampionPointer, *, suffix: str = "") -> None:
    """Replace a pointer in one step."""
    content = {"name": pointer.name, "version": pointer.version, "manifest_sha256": pointer.sha256}
    durable_files.write_atomically(
        champions / f"{pointer.name}{suffix}.json", json.dumps(content, sort_keys=True) + "\n"
    )


def open_version(champions: Path, pointer: ChampionPointer) -> Champion:
    """The published version of a pointer, verified and loaded. Raises InvalidBundle where it is not that one."""
    manifest, model = open_model(champions / pointer.name / pointer.version)
    if manifest.sha256 != pointer.sha256:
        raise InvalidBundle(f"version {pointer.version} of {pointer.name} is not the one that was published")
    return Champion(pointer.name, pointer.version, manifest.learner, manifest.facts, model)


def _read_pointer(file: Path) -> tuple[str, str]:
    if _size(file) > _MAX_MANIFEST_BYTES:
        raise InvalidBundle(f"{file.name} is too large")
    try:
        pointer = json.loads(file.read_bytes())
        version, sha256 = pointer["version"], pointer["manifest_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidBundle(f"{file.name} cannot be read; publish the champion again") from None
    if not isinstance(version, str) or not _SAFE_NAME.fullmatch(version):
        raise InvalidBundle(f"{file.name} names no version; publish the champion again")
    return version, str(sha256)
