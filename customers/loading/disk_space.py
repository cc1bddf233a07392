"""Folders for rows that do not fit in memory: of one process each, and gone when it has ended."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

FOLDER = "loading"


@contextmanager
def temporary_folder(home: Path) -> Iterator[Path]:
    """A folder in the home for one load, removed at the end with all that lies in it."""
    (home / FOLDER).mkdir(mode=0o700, exist_ok=True)
    folder = make_process_folder(home / FOLDER)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_process_folder(parent: Path, prefix: str = "") -> Path:
    """A new folder that only this user may read; those that killed processes left with this prefix are removed."""
    _remove_dead_folders(parent, prefix)
    return Path(mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))


def remove_leftovers(home: Path) -> None:
    """Remove the folders of loads that were killed."""
    _remove_dead_folders(home / FOLDER, "")


def _remove_dead_folders(parent: Path, prefix: str) -> None:
    for folder in parent.glob(f"{prefix}*-*"):
        if not _is_running(folder.name.removeprefix(prefix).split("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process_id: str) -> bool:
    try:
        os.kill(int(process_id), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):
        pass
    return True
