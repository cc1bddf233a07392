"""Errors that are shown to users as one line, and the exit code of each."""

from __future__ import annotations

EXIT_NOTHING_DONE, EXIT_WRONG_USAGE, EXIT_UNAVAILABLE = 1, 2, 3


class NothingToDo(Exception):
    """There is nothing to do with the present records; the message says what to do next."""


class WrongUsage(Exception):
    """A command or function was called with an unknown name or value; the message lists the valid ones."""


def explain_error(error: Exception) -> tuple[str, int] | None:
    """The message and exit code of an error meant for users; None for any other, which keeps its traceback."""
    from customers.shop.errors import ShopError, ShopUnavailable
    from features.store.feature_store import NoSnapshot
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
    return None
