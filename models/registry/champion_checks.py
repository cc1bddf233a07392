"""Verdicts on champions: each version is compared with its golden predictions once, whichever worker comes first.

All that wait for a verdict are checked by one process, which imports the libraries of the models once.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import NamedTuple

from customers.shop import durable_files
from models.registry import bundle, golden
from models.registry.bundle import ChampionPointer, InvalidBundle

#: Ending of the pointer to the last version that passed its check.
VERIFIED_SUFFIX = ".verified"
#: A champion is refused if it takes more than this many times as long as the present one, and more than the seconds.
MAX_SLOWDOWN, SLOW_SECONDS = 20.0, 0.5
#: Seconds after which a check gives up: a champion that needs longer to load cannot serve.
TIMEOUT_SECONDS = 120.0
#: How often the verdict of another process is looked for.
POLL_SECONDS = 0.1
REPOSITORY_ROOT = Path(__file__).parents[2]
#: For a few rows threads only wait for each other, and on a busy machine for seconds.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class CheckIncomplete(InvalidBundle):
    """A check came to no result; it may be repeated."""


class BundlePair(NamedTuple):
    """The folder of a bundle to check, and that of the present champion, where there is one."""

    folder: Path
    present: Path | None


def check_all(
    champions: Path, present_versions: Mapping[ChampionPointer, str]
) -> Iterator[tuple[ChampionPointer, InvalidBundle | None]]:
    """Check versions against their golden predictions, unless another process has done so.

    Yields each version as soon as its verdict is known, with the reason why it must not serve, which is
    CheckIncomplete where that is not known yet. `present_versions`: those that serve now.
    """
    waiting = dict(present_versions)
    while waiting:
        with _try_lock(champions / ".check.lock") as acquired:
            for pointer in list(waiting):
                if (verdict := _read_verdict(champions, pointer)) is not None:
                    del waiting[pointer]
                    yield pointer, None if verdict["fault"] is None else InvalidBundle(verdict["fault"])
            if acquired and waiting:
                yield from _check_and_record(champions, waiting)
                return
        if waiting:
            time.sleep(POLL_SECONDS)


def _check_and_record(
    champions: Path, present_versions: Mapping[ChampionPointer, str]
) -> Iterator[tuple[ChampionPointer, InvalidBundle | None]]:
    pointers = list(present_versions)
    pairs = [_find_folders(champions, pointer, present_versions[pointer]) for pointer in pointers]
    for pointer, fault in zip(pointers, find_faults(pairs), strict=True):
        if isinstance(fault, CheckIncomplete):
            yield pointer, fault
            continue
        _write_verdict(champions, pointer, fault)
        if fault is None:
            bundle.write_pointer(champions, pointer, suffix=VERIFIED_SUFFIX)
        yield pointer, None if fault is None else InvalidBundle(fault)


def _find_folders(champions: Path, pointer: ChampionPointer, present_version: str) -> BundlePair:
    present = champions / pointer.name / present_version
    return BundlePair(champions / pointer.name / pointer.version, present if present.exists() else None)


def read_fault(champions: Path, pointer: ChampionPointer) -> str | None:
    """Why a version was refused; None where it was not, or not checked yet."""
    verdict = _read_verdict(champions, pointer)
    return verdict["fault"] if verdict else None


def read_refusal(champions: Path, name: str) -> str | None:
    """Why the newest published version of a model was refused; None where it was not."""
    try:
        pointer = bundle.read_pointer(champions, name)
    except InvalidBundle as error:
        return str(error)
    return read_fault(champions, pointer) if pointer else None


def find_faults(pairs: Sequence[BundlePair]) -> Iterator[str | CheckIncomplete | None]:
    """Why each bundle must not serve, in their order and as soon as it is known; None if it may.

    The checks run in a process of their own, which a corrupt model may bring down: another one then checks the rest.
    """
    done = 0
    while done < len(pairs):
        process = _CheckProcess(pairs[done:])
        for fault in process.read_faults():
            done += 1
            yield fault
        if done < len(pairs):
            done += 1
            yield CheckIncomplete(process.describe_end())


#: Begins a line of the checking process that is a result.
_RESULT_MARK = "result of a check: "


class _CheckProcess:
    """A process that checks bundles one after the other."""

    def __init__(self, pairs: Sequence[BundlePair]) -> None:
        folders = [[str(folder) for folder in pair if folder] for pair in pairs]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "models.registry.champion_checks", json.dumps(folders)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            cwd=REPOSITORY_ROOT,
            env={**os.environ, **_ENVIRONMENT},
        )
        self._is_late = False

    def read_faults(self) -> Iterator[str | None]:
        """The results, each within TIMEOUT_SECONDS after the one before; fewer where the process ends early."""
        assert self._process.stdout is not None
        with self._process:
            while line := self._read_line():
                if line.startswith(_RESULT_MARK):  # libraries print lines of their own
                    yield json.loads(line.removeprefix(_RESULT_MARK))["fault"]

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        timer = Timer(TIMEOUT_SECONDS, self._give_up)
        timer.start()
        try:
            return self._process.stdout.readline()
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self._is_late = True
        self._process.kill()

    def describe_end(self) -> str:
        """Why a result is missing."""
        if self._is_late:
            return f"its check took more than {TIMEOUT_SECONDS:.0f} seconds"
        return f"its check ended with status {self._process.returncode}"


def check(folder: Path, present: Path | None = None) -> str | None:
    """Why the bundle in this folder must not serve, found in this process; None if it may.

    `present` is the bundle that serves now.
    """
    try:
        model = bundle.open_model(folder)[1]
    except bundle.InvalidBundle as error:
        return str(error)
    inputs, outputs = golden.read(folder)
    fault = golden.compare(golden.predict(model, inputs), outputs)
    if fault or present is None:
        return fault
    seconds = golden.time_predictions(model, inputs)
    if seconds is None or seconds <= SLOW_SECONDS:
        return None
    present_seconds = golden.time_predictions(bundle.open_model(present)[1], inputs)
    if present_seconds is not None and seconds > MAX_SLOWDOWN * present_seconds:
        return f"it takes {seconds / present_seconds:.0f} times as long as the present champion"
    return None


def _read_verdict(champions: Path, pointer: ChampionPointer) -> dict[str, str | None] | None:
    try:
        verdict = json.loads((champions / f"{pointer.name}{bundle.VERDICT_SUFFIX}").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    is_current = (verdict["version"], verdict["manifest_sha256"]) == (pointer.version, pointer.sha256)
    return verdict if is_current else None


def _write_verdict(champions: Path, pointer: ChampionPointer, fault: str | None) -> dict[str, str | None]:
    verdict = {"version": pointer.version, "manifest_sha256": pointer.sha256, "fault": fault}
    durable_files.write_atomically(champions / f"{pointer.name}{bundle.VERDICT_SUFFIX}", json.dumps(verdict))
    return verdict


@contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Whether this process got the lock, which it holds inside the block."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def main() -> None:
    """Check the bundles whose folders are the argument, as JSON; a marked line of JSON on stdout for each."""
    for folders in json.loads(sys.argv[1]):
        # On a line of its own, also after a text without an end.
        sys.stdout.write(f"\n{_RESULT_MARK}" + json.dumps({"fault": check(*map(Path, folders))}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
