"""The folder in the home for rows of a load that do not fit in memory; it is empty between loads."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

FOLDER = "loading"


@contextmanager
def temporary_folder(home: Path) -> Iterator[Path]:
    """A folder of this process, removed at the end with all that lies in it."""
    remove_leftovers(home)
    (home / FOLDER).mkdir(mode=0o700, exist_ok=True)
    folder = Path(mkdtemp(prefix=f"{os.getpid()}-", dir=home / FOLDER))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(home: Path) -> None:
    """Remove the folders of loads that were killed."""
    for folder in (home / FOLDER).glob("*-*"):
        if not _is_running(folder.name.split("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process_id: str) -> bool:
    try:
        os.kill(int(process_id), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True
