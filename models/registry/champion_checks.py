"""Verdicts on champions: each version is compared with its golden predictions once, whichever worker comes first."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

from customers.shop import durable_files
from models.registry import bundle, golden
from models.registry.bundle import ChampionPointer, InvalidBundle

#: Ending of the pointer to the last version that passed its check.
VERIFIED_SUFFIX = ".verified"
#: A champion is refused if it takes more than this many times as long as the present one, and more than the seconds.
MAX_SLOWDOWN, SLOW_SECONDS = 20.0, 0.5
#: Seconds after which a check gives up: a champion that needs longer to load cannot serve.
TIMEOUT_SECONDS = 120.0
REPOSITORY_ROOT = Path(__file__).parents[2]


class CheckIncomplete(InvalidBundle):
    """A check came to no result; it may be repeated."""


def check_once(champions: Path, pointer: ChampionPointer, present_version: str) -> None:
    """Check a version against its golden predictions, unless another process has done so.

    Raises InvalidBundle with the reason why it must not serve, CheckIncomplete where that is not known yet.
    """
    with (champions / f".{pointer.name}.check.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        verdict = _read_verdict(champions, pointer)
        if verdict is None:
            folder = champions / pointer.name
            present = folder / present_version
            fault = find_fault(folder / pointer.version, present if present.exists() else None)
            verdict = _write_verdict(champions, pointer, fault)
            if fault is None:
                bundle.write_pointer(champions, pointer, suffix=VERIFIED_SUFFIX)
    if verdict["fault"] is not None:
        raise InvalidBundle(verdict["fault"])


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


def find_fault(folder: Path, present: Path | None = None) -> str | None:
    """Why the bundle in this folder must not serve; None if it may. `present` is the bundle that serves now.

    The check runs in a process of its own, which a corrupt model may bring down. Raises CheckIncomplete where it ends
    without a result.
    """
    command = [
        sys.executable,
        "-m",
        "models.registry.champion_checks",
        str(folder),
        *([str(present)] if present else []),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, cwd=REPOSITORY_ROOT, check=False
        )
    except subprocess.TimeoutExpired:
        raise CheckIncomplete(f"its check took more than {TIMEOUT_SECONDS:.0f} seconds") from None
    if done.returncode != 0:
        raise CheckIncomplete(f"its check ended with status {done.returncode}")
    fault: str | None = json.loads(done.stdout.splitlines()[-1])["fault"]
    return fault


def check(folder: Path, present: Path | None = None) -> str | None:
    """As `find_fault`, in this process."""
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


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"fault": check(*map(Path, sys.argv[1:]))}) + "\n")
