"""Failures: which errors are meant for people, and with which exit code a program is told of them."""

from __future__ import annotations

NOTHING_DONE, WRONG_USAGE, NEEDS_SOMETHING = 1, 2, 3


class NothingToDo(Exception):
    """Nothing could be done with these records; the message says what to do next."""


class WrongUsage(Exception):
    """The command was called with words it does not know; the message says which it does."""


def explain(failure: Exception) -> tuple[str, int] | None:
    """The line to show and the exit code; None for an error that is ours, which keeps its trace."""
    from customers.shop import ShopDown, ShopError
    from features.store import NoSnapshot
    from models.base import TooLittle, Unfit
    from models.bundle import BadBundle
    from models.registry import NoVersion

    if isinstance(failure, WrongUsage):
        return str(failure), WRONG_USAGE
    if isinstance(failure, ShopDown | ConnectionError):
        return str(failure), NEEDS_SOMETHING
    if isinstance(failure, ShopError | NothingToDo | NoSnapshot | TooLittle | Unfit | BadBundle | NoVersion):
        return str(failure), NOTHING_DONE
    return None
