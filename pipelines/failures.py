"""Failures: which errors are meant for people, and with which exit code a program is told of them."""

from __future__ import annotations

NOTHING_DONE, WRONG_USAGE, NEEDS_SOMETHING = 1, 2, 3


class NothingToDo(Exception):
    """Nothing could be done with these records; the message says what to do next."""


def explain(failure: Exception) -> tuple[str, int] | None:
    """The line to show and the exit code; None for an error that is ours, which keeps its trace."""
    from customers.shop import ShopDown, ShopError

    if isinstance(failure, ShopDown | ConnectionError):
        return str(failure), NEEDS_SOMETHING
    if isinstance(failure, ShopError | NothingToDo):
        return str(failure), NOTHING_DONE
    return None
