"""A customer asks for everything that is held of them, and to be forgotten: then nothing of them is left or returns."""

import json
from typing import Any

import pandas as pd
import pytest


def key_of(counter: Any, name: str) -> int:
    from customers import profiles

    return profiles.keys_of(counter.shop, [name])[name]


def erase(counter: Any, name: str, role: str = "agent") -> Any:
    return counter.ask(f"/v1/customers/{name}/erase", {}, role)


def test_everything_is_shown_to_them(counter: Any) -> None:
    response = counter.ask("/v1/customers/c000/export", {}, "agent")
    assert response.status_code == 200
    shown = response.json()
    assert shown["customer_id"] == "c000"
    assert shown["profile"]["email"] == "w.canarybird@example.com"
    assert {score["model"] for score in shown["scores"]} == {
        "churn", "timing", "value", "recommender", "restock", "offers"
    }  # fmt: skip
    assert shown["orders"]
    assert shown["interactions"]


def test_they_are_forgotten_everywhere(counter: Any) -> None:
    key = key_of(counter, "c010")
    lines = len(ledger(counter))
    response = erase(counter, "c010")
    assert response.status_code == 200
    assert response.json()["erased"]
    assert response.json()["forgotten"]
    assert response.json()["lines"] > 0

    for path in ("", "/scores"):
        assert counter.read(f"/v1/customers/c010{path}").status_code == 404
    assert counter.ask("/v1/customers/c010/export", {}).status_code == 404
    answer = counter.read("/v1/customers/c010/churn").json()["results"][0]
    assert (answer["known"], answer["fallback"]) == (False, True)
    listed = counter.read("/v1/at-risk?limit=1000&band=lapsed").text + counter.read("/v1/at-risk?limit=1000").text
    assert "c010" not in listed

    assert len(ledger(counter)) == lines  # the books stay whole
    assert key not in set(ledger(counter)["customer_key"].dropna())
    for view in (counter.shop.home / "features").glob("*/part.parquet"):
        table = pd.read_parquet(view)
        assert "customer_key" not in table or key not in set(table["customer_key"])
    assert figures(counter, key)["event_timestamp"].isna().all()


def ledger(counter: Any) -> pd.DataFrame:
    """The mirror of the books."""
    return pd.concat(map(pd.read_parquet, (counter.shop.home / "ledger").glob("month=*/part.parquet")))


def figures(counter: Any, key: int) -> pd.DataFrame:
    from serving import desk

    return desk.of(counter.shop).features.now("churn_v1", [key])


def test_neither_a_load_nor_a_sale_nor_a_night_brings_them_back(counter: Any, night: Any) -> None:
    key = key_of(counter, "c011")
    assert erase(counter, "c011").status_code == 200
    person = {"customer_id": "c011", "given_name": "Wilhelmina"}
    refused = counter.ask("/v1/customers", person)
    assert refused.status_code == 422
    assert "erased" in refused.text
    sale = {"order_id": "after", "customer_id": "c011", "product_id": "p03", "sold_at": "2025-07-24", "quantity": 1,
            "amount": 3}  # fmt: skip
    assert counter.ask("/v1/transactions", sale).json()["inserted"] == 1
    night(counter.shop)
    assert counter.read("/v1/customers/c011").status_code == 404
    assert figures(counter, key)["event_timestamp"].isna().all()


def test_of_four_erasures_at_once_under_one_key_one_is_done_and_the_others_hear_of_it(counter: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    headers = counter.key("agent") | {"Idempotency-Key": "erase-c013"}
    with ThreadPoolExecutor(4) as many:
        asked = [many.submit(counter.client.post, "/v1/customers/c013/erase", headers=headers) for _ in range(4)]
        answers = [each.result() for each in asked]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 3
    assert counter.client.post("/v1/customers/c013/erase", headers=headers).text == answers[0].text


def test_who_is_unknown_cannot_be_shown_or_forgotten(counter: Any) -> None:
    for what in ("export", "erase"):
        response = counter.ask(f"/v1/customers/canary/{what}", {}, "agent")
        assert response.status_code == 404
        assert "canary" not in response.text


@pytest.mark.parametrize("role", ["campaign", "analyst", "till"])
def test_only_those_who_serve_customers_may(counter: Any, role: str) -> None:
    for what in ("export", "erase"):
        assert counter.ask(f"/v1/customers/c002/{what}", {}, role).status_code == 403


def test_an_announcement_stands_while_a_night_is_at_work(counter: Any) -> None:
    """The night may have read of them before; it follows the announcement itself at its end."""
    import fcntl

    from customers import privacy
    from serving import desk, forget

    with (counter.shop.home / "night.lock").open("w") as at_work:
        fcntl.flock(at_work, fcntl.LOCK_EX)
        assert not erase(counter, "c012").json()["forgotten"]
        assert len(privacy.unforgotten(counter.shop)) == 1
        assert forget.forget(counter.shop, desk.of(counter.shop).features, at_night=True) == 1
    assert privacy.unforgotten(counter.shop) == []


def test_no_word_of_theirs_is_left_in_the_database(counter: Any) -> None:
    person = {"customer_id": "gone", "given_name": "Xanthippe", "email": "xanthippe@example.com", "city": "Ulan Bator"}
    assert counter.ask("/v1/customers", person).status_code == 200
    said = json.loads(counter.ask("/v1/customers/gone/export", {}).text)
    assert said["profile"]["city"] == "Ulan Bator"
    assert erase(counter, "gone").json()["forgotten"]
    found = counter.ask("/v1/customers/gone/export", {})
    assert found.status_code == 404
    assert "Xanthippe" not in found.text
