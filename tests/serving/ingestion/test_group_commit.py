"""Group commit: concurrent calls are carried out together, each gets its own result, and none is lost."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.ingestion.group_commit import GroupCommit


def test_a_single_call_is_a_group_of_one() -> None:
    groups: list[list[int]] = []

    def double(group):
        groups.append(list(group))
        return [2 * each for each in group]

    assert GroupCommit(double).submit(21) == 42
    assert groups == [[21]]


def test_calls_that_wait_share_the_next_group_and_get_their_own_results() -> None:
    groups: list[list[int]] = []
    first_runs, may_go_on = threading.Event(), threading.Event()

    def double(group):
        groups.append(list(group))
        first_runs.set()
        may_go_on.wait(10)
        return [2 * each for each in group]

    commit = GroupCommit(double)
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(commit.submit, 0)
        first_runs.wait(10)
        others = [pool.submit(commit.submit, number) for number in range(1, 20)]
        while len(commit._waiting) < 19:
            pass
        may_go_on.set()
        assert first.result(10) == 0
        assert [other.result(10) for other in others] == [2 * number for number in range(1, 20)]
    assert [len(group) for group in groups] == [1, 19]


def test_a_group_has_at_most_its_limit() -> None:
    sizes: list[int] = []

    def count(group):
        sizes.append(len(group))
        return group

    commit = GroupCommit(count, max_group=3)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(commit.submit, range(50))) == list(range(50))
    assert max(sizes) <= 3
    assert sum(sizes) == 50


def test_an_error_reaches_every_call_of_its_group_and_no_other() -> None:
    def divide(group):
        return [1 / each for each in group]

    commit = GroupCommit(divide)
    with pytest.raises(ZeroDivisionError):
        commit.submit(0)
    assert commit.submit(2) == 0.5
