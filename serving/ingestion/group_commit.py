"""Group commit: calls that arrive while an earlier one works are carried out together, in the order of arrival."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from threading import Lock
from typing import Generic, TypeVar

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")


@dataclass
class _Call(Generic[ArgumentT, ResultT]):
    argument: ArgumentT
    result: Future[ResultT] = field(default_factory=Future)
    context: Context = field(default_factory=copy_context)


class GroupCommit(Generic[ArgumentT, ResultT]):
    """Runs the arguments of concurrent calls as one group, on a thread of its own, in the context of the first of them.

    `run` takes a group of arguments and returns a result for each. While one group runs, the next one forms: the more
    calls there are, the larger the groups, and the more calls share what a group costs.
    """

    def __init__(self, run: Callable[[Sequence[ArgumentT]], Sequence[ResultT]], *, max_group: int = 200) -> None:
        self._run = run
        self._max_group = max_group
        self._waiting: list[_Call[ArgumentT, ResultT]] = []
        self._lock = Lock()
        # Were the callers' threads to run the groups, each would have to get a lock in turn only to find its result.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="group-commit")

    def submit(self, argument: ArgumentT) -> ResultT:
        """The result of one call. Raises what `run` raised for its group."""
        call = _Call[ArgumentT, ResultT](argument)
        with self._lock:
            self._waiting.append(call)
        self._executor.submit(self._run_group)
        return call.result.result()

    def _run_group(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting[: self._max_group], self._waiting[self._max_group :]
        if not group:  # an earlier group has had this call
            return
        try:
            results = group[0].context.run(self._run, [call.argument for call in group])
            for call, result in zip(group, results, strict=True):
                call.result.set_result(result)
        except BaseException as error:
            for call in group:
                if not call.result.done():
                    call.result.set_exception(error)
