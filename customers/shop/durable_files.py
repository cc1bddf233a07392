"""Files that are replaced in one step and last through a power failure, and how a change of one is noticed."""

import os
from pathlib import Path

#: Modification time in nanoseconds, inode and size of a file; empty where there is none.
FileFingerprint = tuple[int, ...]


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by this text, UTF-8: a reader, or a machine that restarts, finds the old file or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    sync(partial)
    os.replace(partial, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_fingerprint(path: Path) -> FileFingerprint:
    """What changes when `write_atomically` replaces the file."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ino, status.st_size
