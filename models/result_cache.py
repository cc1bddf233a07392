"""The latest results of costly functions of arrays: what a learner computes twice in one run is computed once."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Result = TypeVar("Result")


class ResultCache(Generic[Result]):
    """The latest `size` results of one function, by the digest of its inputs.

    A learner is fitted before the hold-out and again on all days, and most of its cutoffs are in both. Results must
    not be changed by their readers, must depend on nothing but the digested inputs, and hold no data of a customer.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._results: OrderedDict[str, Result] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str, compute: Callable[[], Result]) -> Result:
        """The result for this digest, computed where it is not among the latest."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        result = compute()
        with self._lock:
            self._results[key] = result
            while len(self._results) > self._size:
                self._results.popitem(last=False)
        return result


def digest(*arrays: NDArray[Any] | None, **settings: Any) -> str:
    """Digest of arrays, their types and shapes, and of settings that JSON can write."""
    hashed = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for array in arrays:
        if array is None:
            hashed.update(b"none")
        else:
            hashed.update(f"{array.dtype} {array.shape}".encode())
            hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()
