"""While the feature store is away, champions answer from the last night's features, and every answer says so."""

import time
from typing import Any

import pytest

QUESTIONS = ("churn", "next-purchase", "value", "recommendations", "restock", "offers")


@pytest.fixture
def broken(isolated_api: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The API of a shop whose online store does not answer."""
    from features.store.sqlite_values import SqliteValues

    def fail(*_: Any) -> None:
        raise SqliteValues.outages[0]("the disk is gone")

    monkeypatch.setattr(SqliteValues, "read", fail)
    return isolated_api


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_last_nights_features_answer_with_their_age(isolated_api: Any, question: str) -> None:
    from features.store.sqlite_values import SqliteValues

    path = f"/v1/customers/c001/{question}"
    before = isolated_api.read(path)
    assert "degraded" not in before.json()
    assert "x-regulars-degraded" not in before.headers

    def fail(*_: Any) -> None:
        raise SqliteValues.outages[0]("the disk is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqliteValues, "read", fail)
        patch.setattr("serving.lookup.answers.answer_from_lookup", None, raising=False)
        degraded = isolated_api.read(path)
    assert degraded.status_code == 200, degraded.text
    answer = degraded.json()
    assert answer["degraded"]["age_seconds"] >= 0
    assert "online store" in answer["degraded"]["reason"]
    assert answer["degraded"]["features_as_of"] == before.json()["results"][0]["features_as_of"]
    assert degraded.headers["x-regulars-degraded"].startswith("age=")
    assert "disk is gone" not in degraded.text
    # The features of the night are those that were online, so the answer is the same.
    assert answer["results"] == before.json()["results"]
    assert "degraded" not in isolated_api.read(path).json()


def test_an_unknown_customer_gets_the_average_which_needs_no_features(broken: Any) -> None:
    answer = broken.read("/v1/customers/nobody/churn").json()
    assert answer["results"][0]["fallback"]
    assert "degraded" not in answer


def test_many_customers_in_one_request(broken: Any) -> None:
    answer = broken.post("/v1/churn", {"customer_ids": ["c001", "nobody", "c002", "c001"]}).json()
    assert [result["known"] for result in answer["results"]] == [True, False, True, True]
    assert answer["degraded"]


def test_readyz_gives_the_reason(broken: Any) -> None:
    from features.store import loss_detector

    time.sleep(loss_detector.CHECK_SECONDS)  # the store is looked at no more often
    ready = broken.client.get("/readyz")
    assert ready.status_code == 200
    assert any("online store does not answer" in reason for reason in ready.json()["reasons"])


def test_a_sale_is_stored_and_made_up_for_later(broken: Any) -> None:
    from customers.ledger import refresh_queue

    sale = {"order_id": "away", "customer_id": "c001", "product_id": "p04", "sold_at": "2025-07-24T10:00:00-04:00"}
    stored = broken.post("/v1/transactions", sale | {"quantity": 1, "amount": "5"}, "till")
    assert (stored.status_code, stored.json()["inserted"]) == (200, 1)
    assert len(refresh_queue.list_pending(broken.shop)) in (0, 1)


def test_who_withdrew_the_use_of_sensitive_products_is_not_scored_on_the_nights_features(broken: Any) -> None:
    assert broken.post("/v1/products", [{"product_id": "p01", "sensitive": True}]).status_code == 200
    statement = {"purpose": "profiling_sensitive", "source": "web"}
    statements = [
        statement | {"customer_id": "c001", "state": "granted", "at": "2025-07-01T10:00:00Z"},
        statement | {"customer_id": "c001", "state": "revoked", "at": "2025-07-02T10:00:00Z"},
        statement | {"customer_id": "c002", "state": "granted", "at": "2025-07-02T10:00:00Z"},
        statement | {"customer_id": "c003", "state": "denied", "at": "2025-07-02T10:00:00Z"},
    ]
    assert broken.post("/v1/consents", statements).json()["inserted"] == 4
    results = broken.post("/v1/churn", {"customer_ids": ["c001", "c002", "c003"]}).json()["results"]
    assert [result["fallback"] for result in results] == [True, False, False]
