"""Failures: which errors are meant for people, and with which exit code a program is told of them."""

from __future__ import annotations

EXIT_NOTHING_DONE, EXIT_WRONG_USAGE, EXIT_UNAVAILABLE = 1, 2, 3


class NothingToDo(Exception):
    """Nothing could be done with these records; the message says what to do next."""


class WrongUsage(Exception):
    """The command was called with words it does not know; the message says which it does."""


def explain_error(error: Exception) -> tuple[str, int] | None:
    """The line to show and the exit code; None for an error that is ours, which keeps its trace."""
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
