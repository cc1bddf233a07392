"""When the home of a server is brought up to date with what other machines did."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import replica

CHURN_MOVED = frozenset({("churn", "2")})


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Every update that `watch` makes, as what `_run_update` returned; all are complete."""
    made: list[bool] = []
    monkeypatch.setattr(replica.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(replica.settings, "open_shop", lambda home: None)
    monkeypatch.setattr(replica, "_run_update", lambda home, parent: made.append(True) or True)
    return made


def watch_for(looks: int, changes: Iterator[frozenset[replica.Change]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `watch` until its parent has ended, which it does after this many looks."""
    parents = iter([1] * (looks + 1) + [2])
    monkeypatch.setattr(replica.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(replica, "_find_changes", lambda shop: next(changes))
    replica.watch(Path("home"))


def test_a_promotion_that_is_in_the_log_before_the_registry_is_tried_again(
    updates: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    none: frozenset[replica.Change] = frozenset()
    changes = iter([none, CHURN_MOVED, CHURN_MOVED, CHURN_MOVED, none, none, none])
    watch_for(5, changes, monkeypatch)
    assert len(updates) == 2


def test_an_alias_set_by_hand_is_left_after_some_tries(updates: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    watch_for(50, iter(lambda: CHURN_MOVED, None), monkeypatch)
    assert 2 < len(updates) < 10
