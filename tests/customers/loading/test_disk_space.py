"""Folders for what does not fit in memory."""

import os
import subprocess
import sys
from pathlib import Path

from customers.loading import disk_space


def test_only_this_user_reads_the_folder_and_dead_processes_leave_none(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = tmp_path / f"spill-{int(ended.stdout)}-abc"
    others = [tmp_path / "spill-of-somebody", tmp_path / f"other-{int(ended.stdout)}-abc"]
    for folder in (dead, *others):
        folder.mkdir()
    folder = disk_space.make_process_folder(tmp_path, "spill-")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.name.startswith(f"spill-{os.getpid()}-")
    assert not dead.exists()
    assert all(each.exists() for each in others)
    assert disk_space.make_process_folder(tmp_path, "spill-").exists()
    assert folder.exists()
