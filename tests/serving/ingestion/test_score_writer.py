"""Scores follow features on a thread of their own: answers are new before, and nobody is lost or scored in vain."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from threading import Event
from typing import Any
from uuid import uuid4

import pytest


@contextmanager
def held_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No scores are stored inside the block."""
    from serving.scoring import refresh

    is_open, store = Event(), refresh.store_scores

    def wait_and_store(*arguments: Any) -> None:
        assert is_open.wait(30)
        store(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(refresh, "store_scores", wait_and_store)
        yield
        is_open.set()
        writer().wait(seconds=30)


def writer() -> Any:
    from serving.ingestion import score_writer

    return score_writer.get_writer()


def sell(api: Any, *names: str) -> bool:
    from customers import clock

    sold_at = (clock.now(api.shop) - timedelta(hours=1)).isoformat()
    line = {"line_id": "1", "product_id": "p04", "sold_at": sold_at, "quantity": 1, "amount": "5.00"}
    lines = [line | {"order_id": str(uuid4()), "customer_id": name} for name in names]
    return bool(api.post("/v1/transactions", lines, "till").json()["refreshed"])


def queued(api: Any) -> set[int]:
    from customers.ledger import refresh_queue

    return set(refresh_queue.list_pending(api.shop))


def key_of(api: Any, name: str) -> int:
    from customers.people import lookup

    return int(lookup.find_keys(api.shop, [name])[name])


def churn(api: Any, name: str) -> dict[str, Any]:
    (result,) = api.read(f"/v1/customers/{name}/churn").json()["results"]
    return dict(result)


def stored_churn(api: Any, name: str) -> float:
    from customers.scores import score_store

    return float(score_store.load_customer_scores(api.shop, key_of(api, name))["churn"].value or 0.0)


def test_answers_are_new_before_the_scores_are_stored(isolated_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = churn(isolated_api, "c001")
    with held_back(monkeypatch):
        assert sell(isolated_api, "c001")
        after = churn(isolated_api, "c001")
        assert datetime.fromisoformat(after["features_as_of"]) > datetime.fromisoformat(before["features_as_of"])
        assert queued(isolated_api) == {key_of(isolated_api, "c001")}, "a server that is killed now leaves it queued"
        assert not writer().wait(seconds=0.01)
    assert queued(isolated_api) == set()
    assert stored_churn(isolated_api, "c001") == after["probability"] != before["probability"]


def test_customers_with_new_features_are_not_refreshed_twice(
    isolated_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.scoring import refresh

    refreshed: list[int] = []
    refresh_customers = refresh.refresh_customers

    def note(server_runtime: Any, keys: Any) -> Any:
        refreshed.extend(keys)
        return refresh_customers(server_runtime, keys)

    monkeypatch.setattr(refresh, "refresh_customers", note)
    first, second = key_of(isolated_api, "c001"), key_of(isolated_api, "c002")
    with held_back(monkeypatch):
        assert sell(isolated_api, "c001")
        assert sell(isolated_api, "c002")
        assert refreshed == [first, second]
        assert sell(isolated_api, "c001"), "of a further sale the features are new again"
        assert refreshed == [first, second, first]
    assert queued(isolated_api) == set()


def test_one_who_cannot_be_scored_stays_queued_and_keeps_nobody_behind(
    isolated_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving import runtime
    from serving.scoring import online, refresh

    broken, rescore = key_of(isolated_api, "c001"), online.rescore_customers

    def fail_for_one(server_runtime: Any, keys: Any, *rest: Any) -> None:
        if broken in keys:
            raise ValueError("this customer cannot be scored")
        rescore(server_runtime, keys, *rest)

    before = stored_churn(isolated_api, "c002") if churn(isolated_api, "c002") else None
    with monkeypatch.context() as patch:
        patch.setattr(online, "rescore_customers", fail_for_one)
        assert sell(isolated_api, "c001", "c002", "c003")
        assert writer().wait(seconds=30)
        assert queued(isolated_api) == {broken}
    assert stored_churn(isolated_api, "c002") != before
    assert refresh.process_queue(runtime.open_runtime(isolated_api.shop))
    assert queued(isolated_api) == set()


def test_who_objects_between_features_and_scores_is_not_scored(
    isolated_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from customers.database import engine
    from customers.database.schema import scores

    objection = {"customer_id": "c001", "purpose": "profiling", "state": "revoked", "at": "2025-07-24T10:00:00Z"}
    objector, other = key_of(isolated_api, "c001"), key_of(isolated_api, "c002")
    with held_back(monkeypatch):
        assert sell(isolated_api, "c001", "c002")
        assert isolated_api.post("/v1/consents", objection | {"source": "web"}).status_code == 200
    with engine.read_transaction(isolated_api.shop) as connection:
        scored = set(connection.execute(scores.select()).scalars("customer_key"))
    assert other in scored
    assert objector not in scored


def test_nobody_waits_without_a_reason(isolated_api: Any) -> None:
    assert writer().wait(seconds=0)
    assert writer().wait([key_of(isolated_api, "c001")], seconds=0)


def test_where_nobody_can_be_scored_it_is_not_tried_for_everybody(
    isolated_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.scoring import refresh

    tried: list[int] = []

    def fail(_server_runtime: Any, refreshed: Any) -> None:
        tried.append(len(refreshed.since_by_key))
        raise ValueError("no customer can be scored")

    with monkeypatch.context() as patch:
        patch.setattr(refresh, "store_scores", fail)
        assert sell(isolated_api, *(f"c{number:03}" for number in range(1, 31)))
        assert writer().wait(seconds=30)
    assert tried.count(1) == refresh.MAX_FAILURES
    assert len(queued(isolated_api)) == 30


def test_a_worker_leaves_customers_alone_whom_another_has_just_queued(
    isolated_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from customers.ledger import refresh_queue
    from serving.scoring import refresh

    other = key_of(isolated_api, "c002")
    refresh_queue.enqueue_customers(isolated_api.shop, [other])
    assert sell(isolated_api, "c001")
    writer().wait(seconds=30)
    assert queued(isolated_api) == {other}
    monkeypatch.setattr(refresh, "OTHERS_AFTER", timedelta(0))
    assert sell(isolated_api, "c001")
    writer().wait(seconds=30)
    assert queued(isolated_api) == set()
