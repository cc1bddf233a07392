"""Posted records: stored together without mixing their counts, and refused while too many customers wait."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest


def sale(api: Any, customer_id: str, **fields: Any) -> dict[str, Any]:
    """One line, sold an hour before the shop's now."""
    from customers import clock

    sold_at = (clock.now(api.shop) - timedelta(hours=1)).isoformat()
    line = {"order_id": str(uuid4()), "line_id": "1", "customer_id": customer_id, "product_id": "p04"}
    return line | {"sold_at": sold_at, "quantity": 1, "amount": "5.00"} | fields


def counts(result: Any) -> tuple[int, ...]:
    return result.read, result.inserted, result.updated, result.unchanged, result.rejected


def stored_orders(api: Any) -> set[str]:
    from sqlalchemy import text

    from customers.database import engine

    with engine.read_transaction(api.shop) as connection:
        return set(connection.execute(text("select order_id from transactions")).scalars())


def test_requests_together_get_the_counts_that_each_would_get_alone(isolated_api: Any) -> None:
    from customers.loading import load

    requests = [[sale(isolated_api, "c001")], [sale(isolated_api, "c002"), sale(isolated_api, "c003")]]
    together = load.ingest_together(isolated_api.shop, "transactions", requests)
    assert together is not None
    assert [counts(result) for result in together] == [(1, 1, 0, 0, 0), (2, 2, 0, 0, 0)]
    assert {record["order_id"] for request in requests for record in request} <= stored_orders(isolated_api)


@pytest.mark.parametrize(
    "spoil",
    [
        {"amount": "much"},  # invalid
        {"product_id": "never met"},  # a stub is made, and counted
        {"order_id": "shared"},  # in two requests
    ],
)
def test_requests_that_are_not_all_new_are_not_stored_together(isolated_api: Any, spoil: dict[str, str]) -> None:
    from customers.loading import load

    before = stored_orders(isolated_api)
    requests = [[sale(isolated_api, "c001", order_id="shared")], [sale(isolated_api, "c002", **spoil)]]
    assert load.ingest_together(isolated_api.shop, "transactions", requests) is None
    assert stored_orders(isolated_api) == before
    stored_twice = [requests[0], [*requests[0]]]
    assert load.ingest_together(isolated_api.shop, "transactions", stored_twice) is None
    assert load.ingest_together(isolated_api.shop, "transactions", [[sale(isolated_api, "c1")] * 600] * 2) is None


def test_many_tills_at_once_lose_nothing_and_share_no_counts(isolated_api: Any) -> None:
    sales = [sale(isolated_api, f"c{number:03d}") for number in range(24)]
    sales[5]["amount"] = "much"
    with ThreadPoolExecutor(24) as tills:
        responses = list(tills.map(lambda each: isolated_api.post("/v1/transactions", each, "till"), sales))
    assert [response.status_code for response in responses] == [422 if n == 5 else 200 for n in range(24)]
    answers = [response.json() for response in responses if response.status_code == 200]
    assert all((answer["read"], answer["inserted"], answer["refreshed"]) == (1, 1, True) for answer in answers)
    expected = {each["order_id"] for number, each in enumerate(sales) if number != 5}
    assert expected <= stored_orders(isolated_api)
    assert sales[5]["order_id"] not in stored_orders(isolated_api)


def test_an_error_of_some_is_not_the_answer_of_the_others(isolated_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from customers.loading import load
    from serving.ingestion.record_writer import PostedRecords, get_writer

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(load, "ingest_together", fail)
    group = [PostedRecords("transactions", "till", [sale(isolated_api, name)]) for name in ("c001", "c002")]
    stored = get_writer()._store_group(group)
    assert [counts(result) for result in stored] == [(1, 1, 0, 0, 0)] * 2


def test_too_many_waiting_customers_refuse_further_sales_and_store_nothing(
    isolated_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from customers.ledger import refresh_queue
    from customers.people import lookup
    from serving.ingestion import record_writer
    from serving.scoring import refresh

    monkeypatch.setattr(record_writer, "MAX_BACKLOG", 2)
    keys = lookup.find_keys(isolated_api.shop, ["c010", "c011"]).values()
    refresh_queue.enqueue_customers(isolated_api.shop, keys)
    line = sale(isolated_api, "c001")
    headers = isolated_api.key("till") | {"Idempotency-Key": "again"}
    with pytest.MonkeyPatch.context() as store_away:
        store_away.setattr(refresh, "find_unrefreshed", lambda _runtime, keys, **_: set(keys))
        refused = isolated_api.client.post("/v1/transactions", json=line, headers=headers)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.headers["content-type"] == "application/problem+json"
    assert line["order_id"] not in stored_orders(isolated_api)
    metrics = isolated_api.client.get("/metrics").text
    assert "regulars_refresh_backlog 2.0" in metrics
    assert float(metrics.split("\nregulars_refresh_lag_seconds ")[1].split("\n")[0]) > 0
    # Products are no sale: nobody waits for them.
    assert isolated_api.post("/v1/products", {"product_id": "p04", "stock": 3}).status_code == 200

    # The store is back: a refusal has refreshed those who waited, and nobody else need do it.
    accepted = isolated_api.client.post("/v1/transactions", json=line, headers=headers)
    assert (accepted.status_code, accepted.json()["inserted"]) == (200, 1)


def test_before_the_first_night_nothing_is_refused(api_before_first_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.ingestion import record_writer

    monkeypatch.setattr(record_writer, "MAX_BACKLOG", 1)
    for name in ("c001", "c002", "c003"):
        line = sale(api_before_first_run, name)
        assert api_before_first_run.post("/v1/transactions", line, "till").status_code == 200
