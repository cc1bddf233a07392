"""Group commit: calls that arrive while an earlier one works are carried out together, in the order of arrival."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")


@dataclass
class _Call(Generic[ArgumentT, ResultT]):
    argument: ArgumentT
    result: ResultT | None = None
    error: BaseException | None = None
    is_done: bool = False


class GroupCommit(Generic[ArgumentT, ResultT]):
    """Runs the arguments of concurrent calls as one group, on the thread of the first call that gets its turn.

    `run` takes a group of arguments and returns a result for each. While one group runs, the next one forms: the more
    calls there are, the larger the groups, and the more calls share what a group costs.
    """

    def __init__(self, run: Callable[[Sequence[ArgumentT]], Sequence[ResultT]], *, max_group: int = 200) -> None:
        self._run = run
        self._max_group = max_group
        self._waiting: list[_Call[ArgumentT, ResultT]] = []
        self._waiting_lock = Lock()
        self._turn = Lock()

    def submit(self, argument: ArgumentT) -> ResultT:
        """The result of one call. Raises what `run` raised for its group."""
        call = _Call[ArgumentT, ResultT](argument)
        with self._waiting_lock:
            self._waiting.append(call)
        with self._turn:
            while not call.is_done:
                self._run_group()
        if call.error is not None:
            raise call.error
        return call.result  # type: ignore[return-value]

    def _run_group(self) -> None:
        with self._waiting_lock:
            group, self._waiting = self._waiting[: self._max_group], self._waiting[self._max_group :]
        try:
            results = self._run([call.argument for call in group])
            for call, result in zip(group, results, strict=True):
                call.result = result
        except BaseException as error:
            for call in group:
                call.error = error
        for call in group:
            call.is_done = True
