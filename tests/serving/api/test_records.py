"""Records posted by other systems: stored before the response, only once, and never repeated in an error."""

import json
from typing import Any

import pytest

CANARY = "wilhelmina.canary@example.com"
SALE = {
    "order_id": "live-1",
    "line_id": "1",
    "customer_id": "c001",
    "product_id": "p03",
    "sold_at": "2025-07-24T10:00:00-04:00",
    "quantity": 1,
    "amount": 12.5,
}
COUNTS = ("read", "inserted", "updated", "unchanged", "rejected")


def counts(response: Any) -> tuple[int, ...]:
    assert response.status_code == 200, response.text
    return tuple(response.json()[name] for name in COUNTS)


def refusal_errors(response: Any) -> list[dict[str, str]]:
    """The errors of a refusal with status 422, which repeats nothing of the body."""
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert "canary" not in response.text.lower()
    return response.json()["errors"]


def orders(api: Any, customer_id: str) -> dict[str, Any]:
    return {order["order_id"]: order for order in api.read(f"/v1/customers/{customer_id}").json()["orders"]}


def test_a_sale_is_stored_and_shown(api: Any) -> None:
    sale = SALE | {"order_id": "live-shown"}
    assert counts(api.post("/v1/transactions", sale, "till")) == (1, 1, 0, 0, 0)
    (line,) = orders(api, "c001")["live-shown"]["lines"]
    assert (line["product_id"], line["amount"], line["currency"]) == ("p03", "12.50", "USD")


def test_the_same_sale_again_changes_nothing_and_a_changed_one_replaces_it(api: Any) -> None:
    sale = SALE | {"order_id": "live-again"}
    assert counts(api.post("/v1/transactions", sale)) == (1, 1, 0, 0, 0)
    assert counts(api.post("/v1/transactions", sale)) == (1, 0, 0, 1, 0)
    assert counts(api.post("/v1/transactions", sale | {"amount": 13})) == (1, 0, 1, 0, 0)
    assert orders(api, "c001")["live-again"]["lines"][0]["amount"] == "13.00"


def test_a_list_is_stored_without_its_invalid_records(api: Any) -> None:
    lines = [SALE | {"order_id": "live-many", "line_id": str(number)} for number in range(3)]
    lines[1] = lines[1] | {"quantity": CANARY}
    lines.append(SALE | {"order_id": "live-many", "line_id": "9", "sold_at": "2999-01-01"})
    response = api.post("/v1/transactions", lines)
    assert counts(response) == (4, 2, 0, 0, 2)
    assert [error["index"] for error in response.json()["errors"]] == [1, 3]
    assert "quantity" in response.json()["errors"][0]["reason"]
    assert "future" in response.json()["errors"][1]["reason"]
    assert "canary" not in response.text.lower()


def test_a_list_of_invalid_records_only_is_refused_with_a_pointer_to_each(api: Any) -> None:
    invalid = SALE | {"amount": CANARY}
    errors = refusal_errors(api.post("/v1/transactions", [invalid, invalid | {"line_id": "2"}, CANARY]))
    assert [error["pointer"] for error in errors] == ["/0", "/1", "/2"]
    assert refusal_errors(api.post("/v1/transactions", invalid))[0]["pointer"] == ""


@pytest.mark.parametrize("records", [[], [SALE] * 1001], ids=["none", "1,001"])
def test_a_list_has_at_least_1_and_at_most_1000_records(api: Any, records: list[Any]) -> None:
    assert "1 to 1,000" in refusal_errors(api.post("/v1/transactions", records))[0]["detail"]


@pytest.mark.parametrize("body", [f"{{{CANARY}", "", "\xff", "[" * 100_000, '{"amount": NaN}', '{"amount": 1e', "7"])
def test_a_body_that_is_not_a_record_is_refused(api: Any, body: str) -> None:
    headers = api.key("admin") | {"Content-Type": "application/json"}
    refusal_errors(api.client.post("/v1/transactions", content=body.encode("latin-1"), headers=headers))


@pytest.mark.parametrize(
    ("amount", "stored"),
    [("12.3450000000", "12.34"), ("12.3450000001", "12.35"), ("12.355", "12.36"), ("0.1250000000", "0.12")],
)
def test_amounts_are_rounded_once_and_half_to_even_cents(api: Any, amount: str, stored: str) -> None:
    order_id = f"live-{amount}"
    sale = json.dumps(SALE | {"order_id": order_id}).replace("12.5", amount)
    headers = api.key("admin") | {"Content-Type": "application/json"}
    assert counts(api.client.post("/v1/transactions", content=sale, headers=headers))[1] == 1
    assert orders(api, "c001")[order_id]["lines"][0]["amount"] == stored


def test_records_belong_to_their_source(api: Any) -> None:
    sale = SALE | {"order_id": "live-source", "customer_id": ""}
    assert counts(api.post("/v1/transactions?source=till-7", sale)) == (1, 1, 0, 0, 0)
    assert counts(api.post("/v1/transactions?source=till-8", sale)) == (1, 1, 0, 0, 0)


# Idempotency keys -------------------------------------------------------------------------------------------


def post_with_key(api: Any, key: str, record: Any, path: str = "/v1/transactions", role: str = "admin") -> Any:
    return api.client.post(path, json=record, headers=api.key(role) | {"Idempotency-Key": key})


def test_a_request_sent_twice_gets_the_same_response(api: Any) -> None:
    sale = SALE | {"order_id": "live-once"}
    first, again = post_with_key(api, "k-1", sale), post_with_key(api, "k-1", sale)
    assert counts(first) == counts(again) == (1, 1, 0, 0, 0)
    assert first.text == again.text
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"


def test_a_refusal_is_replayed_too(api: Any) -> None:
    invalid = SALE | {"amount": CANARY}
    first, again = post_with_key(api, "k-2", invalid), post_with_key(api, "k-2", invalid)
    assert refusal_errors(first) == refusal_errors(again)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == "application/problem+json"


def test_an_idempotency_key_belongs_to_one_request(api: Any) -> None:
    sale = SALE | {"order_id": "live-key"}
    assert post_with_key(api, "k-3", sale).status_code == 200
    assert refusal_errors(post_with_key(api, "k-3", sale | {"amount": 99}))[0]["parameter"] == "Idempotency-Key"
    assert refusal_errors(post_with_key(api, "k-3", sale, path="/v1/transactions?source=web"))
    assert orders(api, "c001")["live-key"]["lines"][0]["amount"] == "12.50"


def test_two_callers_may_use_the_same_key(api: Any) -> None:
    first, second = (SALE | {"order_id": f"live-{role}"} for role in ("till", "admin"))
    assert counts(post_with_key(api, "k-4", first, role="till"))[1] == 1
    assert counts(post_with_key(api, "k-4", second, role="admin"))[1] == 1


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "two words"])
def test_a_malformed_idempotency_key_is_refused(api: Any, key: str) -> None:
    assert refusal_errors(post_with_key(api, key, SALE))[0]["parameter"] == "Idempotency-Key"


def test_ten_simultaneous_requests_with_one_key_are_executed_once(api: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    sale = SALE | {"order_id": "live-ten"}
    with ThreadPoolExecutor(10) as executor:
        futures = [executor.submit(post_with_key, api, "k-5", sale) for _ in range(10)]
        responses = {future.result().text for future in futures}
    assert len(responses) == 1
    assert len(orders(api, "c001")["live-ten"]["lines"]) == 1


# Other kinds of records -----------------------------------------------------------------------------------


def test_a_customer_is_enrolled_and_an_omitted_field_is_unchanged(api: Any) -> None:
    person = {"customer_id": "new-1", "given_name": "Zoë", "email": "zoe@example.com"}
    assert counts(api.post("/v1/customers", person, "agent")) == (1, 1, 0, 0, 0)
    assert counts(api.post("/v1/customers", {"customer_id": "new-1", "city": "Oslo"}, "agent")) == (1, 0, 1, 0, 0)
    shown = api.read("/v1/customers/new-1", "agent").json()["profile"]
    assert (shown["given_name"], shown["city"]) == ("Zoë", "Oslo")


def test_a_complaint_is_stored_encrypted_and_shown_to_the_roles_that_may_read_it(api: Any) -> None:
    complaint = {
        "interaction_id": "x-1",
        "customer_id": "c002",
        "happened_at": "2025-07-20T10:00:00Z",
        "channel": "phone",
        "kind": "complaint",
        "text": "The bread of Wilhelmina Canarybird was stale",
    }
    assert counts(api.post("/v1/interactions", complaint, "agent")) == (1, 1, 0, 0, 0)
    shown = api.read("/v1/customers/c002", "agent").json()["interactions"]
    assert any("stale" in str(entry) for entry in shown)
    for role in ("campaign", "analyst"):
        response = api.read("/v1/customers/c002", role)
        assert "complaint" in response.text
        assert "stale" not in response.text
    database = (api.shop.home / "shop.db").read_bytes() + (api.shop.home / "shop.db-wal").read_bytes()
    assert b"was stale" not in database


CALL = {
    "interaction_id": "x-2",
    "customer_id": "canary",
    "happened_at": "2025-07-20",
    "kind": "call",
    "channel": "phone",
}
CONSENT = {"customer_id": "c001", "purpose": "profiling", "state": "denied", "at": "2025-01-01"}
OFFER = {"offer_id": "o-1", "starts_at": "2025-07-01", "ends_at": "2025-08-01"}


@pytest.mark.parametrize(
    ("path", "record", "reason"),
    [
        ("/v1/interactions", CALL, "unknown"),
        ("/v1/consents", CONSENT | {"at": "2999-01-01"}, "future"),
        ("/v1/consents", CONSENT | {"purpose": "canary"}, "purpose"),
        ("/v1/catalogue/offers", OFFER, "product_ids"),
        ("/v1/catalogue/offers", OFFER | {"ends_at": "2025-07-01", "categories": ["milk"]}, "ends_at"),
        ("/v1/products", {"product_id": "canary", "price": "canary"}, "price"),
        ("/v1/customers", {"given_name": "canary"}, "customer_id"),
    ],
)
def test_invalid_records_are_refused_with_the_reason(api: Any, path: str, record: dict[str, Any], reason: str) -> None:
    (error,) = refusal_errors(api.post(path, record))
    assert reason in error["detail"]


def test_a_product_is_stored_and_its_category_may_be_requested(api: Any) -> None:
    assert counts(api.post("/v1/products", {"product_id": "tea", "category": "tea", "stock": 3})) == (1, 1, 0, 0, 0)
    body = {"customer_ids": ["c001"], "categories": ["tea"]}
    assert api.post("/v1/recommendations", body).status_code == 200
