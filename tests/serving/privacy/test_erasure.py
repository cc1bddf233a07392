"""A customer asks for everything that is held of them, and to be forgotten: then nothing of them is left or returns."""

import json
from typing import Any

import pandas as pd
import pytest


def key_of(api: Any, name: str) -> int:
    from customers.people import lookup

    return lookup.find_keys(api.shop, [name])[name]


def erase(api: Any, name: str, role: str = "agent") -> Any:
    return api.post(f"/v1/customers/{name}/erase", {}, role)


def test_everything_is_shown_to_them(api: Any) -> None:
    response = api.post("/v1/customers/c000/export", {}, "agent")
    assert response.status_code == 200
    shown = response.json()
    assert shown["customer_id"] == "c000"
    assert shown["profile"]["email"] == "w.canarybird@example.com"
    assert {score["model"] for score in shown["scores"]} == {
        "churn", "timing", "value", "recommender", "restock", "offers"
    }  # fmt: skip
    assert shown["orders"]
    assert shown["interactions"]


def test_they_are_forgotten_everywhere(api: Any) -> None:
    key = key_of(api, "c010")
    lines = len(ledger(api))
    response = erase(api, "c010")
    assert response.status_code == 200
    assert response.json()["erased"]
    assert response.json()["forgotten"]
    assert response.json()["lines"] > 0

    for path in ("", "/scores"):
        assert api.read(f"/v1/customers/c010{path}").status_code == 404
    assert api.post("/v1/customers/c010/export", {}).status_code == 404
    answer = api.read("/v1/customers/c010/churn").json()["results"][0]
    assert (answer["known"], answer["fallback"]) == (False, True)
    listed = api.read("/v1/at-risk?limit=1000&band=lapsed").text + api.read("/v1/at-risk?limit=1000").text
    assert "c010" not in listed

    assert len(ledger(api)) == lines  # the books stay whole
    assert key not in set(ledger(api)["customer_key"].dropna())
    for view in (api.shop.home / "features").glob("*/part.parquet"):
        table = pd.read_parquet(view)
        assert "customer_key" not in table or key not in set(table["customer_key"])
    assert figures(api, key)["event_timestamp"].isna().all()


def ledger(api: Any) -> pd.DataFrame:
    """The mirror of the books."""
    return pd.concat(map(pd.read_parquet, (api.shop.home / "ledger").glob("month=*/part.parquet")))


def figures(api: Any, key: int) -> pd.DataFrame:
    from serving import runtime

    return runtime.open_runtime(api.shop).features.online_features("churn_v1", [key])


def test_neither_a_load_nor_a_sale_nor_a_night_brings_them_back(api: Any, score_customers: Any) -> None:
    key = key_of(api, "c011")
    assert erase(api, "c011").status_code == 200
    person = {"customer_id": "c011", "given_name": "Wilhelmina"}
    refused = api.post("/v1/customers", person)
    assert refused.status_code == 422
    assert "erased" in refused.text
    sale = {"order_id": "after", "customer_id": "c011", "product_id": "p03", "sold_at": "2025-07-24", "quantity": 1,
            "amount": 3}  # fmt: skip
    assert api.post("/v1/transactions", sale).json()["inserted"] == 1
    score_customers(api.shop)
    assert api.read("/v1/customers/c011").status_code == 404
    assert figures(api, key)["event_timestamp"].isna().all()


def test_of_four_erasures_at_once_under_one_key_one_is_done_and_the_others_hear_of_it(api: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    headers = api.key("agent") | {"Idempotency-Key": "erase-c013"}
    with ThreadPoolExecutor(4) as many:
        asked = [many.submit(api.client.post, "/v1/customers/c013/erase", headers=headers) for _ in range(4)]
        answers = [each.result() for each in asked]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 3
    assert api.client.post("/v1/customers/c013/erase", headers=headers).text == answers[0].text


def test_who_is_unknown_cannot_be_shown_or_forgotten(api: Any) -> None:
    for what in ("export", "erase"):
        response = api.post(f"/v1/customers/canary/{what}", {}, "agent")
        assert response.status_code == 404
        assert "canary" not in response.text


@pytest.mark.parametrize("role", ["campaign", "analyst", "till"])
def test_only_those_who_serve_customers_may(api: Any, role: str) -> None:
    for what in ("export", "erase"):
        assert api.post(f"/v1/customers/c002/{what}", {}, role).status_code == 403


def test_an_announcement_stands_while_a_night_is_at_work(api: Any) -> None:
    """The night may have read of them before; it follows the announcement itself at its end."""
    import fcntl

    from customers.privacy import erasure
    from serving import runtime
    from serving.privacy import erasure as privacy_erasure

    with (api.shop.home / "night.lock").open("w") as at_work:
        fcntl.flock(at_work, fcntl.LOCK_EX)
        assert not erase(api, "c012").json()["forgotten"]
        assert len(erasure.pending_erasures(api.shop)) == 1
        assert (
            privacy_erasure.erase_derived_data(api.shop, runtime.open_runtime(api.shop).features, is_nightly=True) == 1
        )
    assert erasure.pending_erasures(api.shop) == []


def test_no_word_of_theirs_is_left_in_the_database(api: Any) -> None:
    person = {"customer_id": "gone", "given_name": "Xanthippe", "email": "xanthippe@example.com", "city": "Ulan Bator"}
    assert api.post("/v1/customers", person).status_code == 200
    said = json.loads(api.post("/v1/customers/gone/export", {}).text)
    assert said["profile"]["city"] == "Ulan Bator"
    assert erase(api, "gone").json()["forgotten"]
    found = api.post("/v1/customers/gone/export", {})
    assert found.status_code == 404
    assert "Xanthippe" not in found.text
