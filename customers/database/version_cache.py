"""Keeps what was read from the database under the version at which it was read."""

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")


class VersionCache(Generic[Value]):
    """The `max_size` values that were used last, each under a key that names the shop and the version of its tables.

    A reader takes the version and the value from the same transaction, so that a value never belongs to another
    version. `functools.lru_cache` would make the connection a part of the key.
    """

    def __init__(self, max_size: int = 4) -> None:
        self._max_size = max_size
        self._values: dict[Hashable, Value] = {}
        self._lock = Lock()

    def get(self, key: Hashable, read: Callable[[], Value]) -> Value:
        """The value of the key; read where it is not in the cache. Two threads may read the same value at once."""
        with self._lock:
            if key in self._values:
                self._values[key] = self._values.pop(key)  # the dict's order is the order of use
                return self._values[key]
        value = read()
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = value
            while len(self._values) > self._max_size:
                del self._values[next(iter(self._values))]
        return value
