"""Errors that are shown to users as one line, and the exit code of each."""

from __future__ import annotations

import errno
import os
import sys

EXIT_NOTHING_DONE, EXIT_WRONG_USAGE, EXIT_UNAVAILABLE = 1, 2, 3
#: How libraries say that the disk is full, where they do not pass on the system's own error: DuckDB, SQLite.
DISK_FULL_TEXTS = ("no space left on device", "database or disk is full", "could not write all bytes")


class NothingToDo(Exception):
    """There is nothing to do with the present records; the message says what to do next."""


class WrongUsage(Exception):
    """A command or function was called with an unknown name or value; the message lists the valid ones."""


def explain_error(error: Exception) -> tuple[str, int] | None:
    """The message and exit code of an error meant for users; None for any other, which keeps its traceback."""
    from customers.shop.errors import ShopError, ShopUnavailable
    from features.store.snapshot_reader import NoSnapshot
    from models.base import InsufficientData, MissingFeatures
    from models.registry.bundle import InvalidBundle
    from models.registry.mlflow_registry import UnknownVersion

    if isinstance(error, WrongUsage):
        return str(error), EXIT_WRONG_USAGE
    if isinstance(error, ShopUnavailable | ConnectionError):
        return str(error), EXIT_UNAVAILABLE
    if isinstance(
        error,
        ShopError | NothingToDo | NoSnapshot | InsufficientData | MissingFeatures | InvalidBundle | UnknownVersion,
    ):
        return str(error), EXIT_NOTHING_DONE
    return _explain_engine_memory(error) or _explain_full_disk(error)


def _explain_engine_memory(error: Exception) -> tuple[str, int] | None:
    """Of DuckDB's errors: not enough memory, and a limit that it cannot read."""
    if "duckdb" not in sys.modules:
        return None
    import duckdb

    limit = os.environ.get("REGULARS_ENGINE_MEMORY", "the default")
    if isinstance(error, duckdb.OutOfMemoryException):
        return (
            f"the computation needs more memory than REGULARS_ENGINE_MEMORY allows ({limit}): set it higher, such as "
            "REGULARS_ENGINE_MEMORY=4GB, and start again; what this run had finished stays"
        ), EXIT_NOTHING_DONE
    # DuckDB quotes no statement and no value in this error.
    if isinstance(error, duckdb.ParserException) and "memory" in str(error).lower():
        return f"REGULARS_ENGINE_MEMORY is {limit}; give a number with a unit, such as 2GB", EXIT_WRONG_USAGE
    return None


def _explain_full_disk(error: Exception) -> tuple[str, int] | None:
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not is_full and not any(text in str(error).lower() for text in DISK_FULL_TEXTS):
        return None
    return (
        "the disk is full: make room and start again; what was finished before stays, and nothing is half-written"
    ), EXIT_UNAVAILABLE
