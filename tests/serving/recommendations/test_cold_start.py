"""Somebody new: their favourites come first, then what sells, and the first basket changes it all."""

from typing import Any

import pandas as pd
import pytest

from serving.recommendations import cold_start, evidence


def shown(api: Any, name: str, **more: Any) -> dict[str, Any]:
    response = api.post("/v1/recommendations", {"customer_ids": [name], **more})
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    return result


def meet(api: Any, name: str, **more: Any) -> None:
    assert api.post("/v1/customers", {"customer_id": name, "stage": "prospect", **more}).status_code == 200


@pytest.mark.parametrize(
    "said",
    [
        {"preferences": {"favourite_categories": ["Milk", "diamonds"], "channel": "email"}},
        {"preferences": {"categories": "milk"}},
        {"favourite_category": "milk"},
    ],
)
def test_favourites_come_first_and_then_what_sells(isolated_api: Any, said: dict[str, Any]) -> None:
    meet(isolated_api, "novice", **said)
    result = shown(isolated_api, "novice", n=20)
    assert (result["known"], result["fallback"]) == (True, True)
    milk, others = result["items"][:10], result["items"][10:]
    assert all(int(item["product_id"][1:]) % 4 == 1 for item in milk)
    assert {item["reason"] for item in milk} == {"sells best in milk, which they like"}
    assert not any(int(item["product_id"][1:]) % 4 == 1 for item in others)
    assert {item["reason"] for item in others} == {"sells best in the shop"}
    assert [item["rank"] for item in result["items"]] == list(range(1, 21))


def test_what_the_shop_puts_first_or_tries_out_keeps_its_own_reason(isolated_api: Any) -> None:
    loved = {"product_id": "novelty", "category": "milk", "labels": "launch"}
    assert isolated_api.post("/v1/products", loved).status_code == 200
    meet(isolated_api, "novice", preferences={"categories": ["milk"]})
    pinned, *rest = shown(isolated_api, "novice", n=5, pin=["launch"])["items"]
    assert (pinned["product_id"], pinned["reason"]) == ("novelty", "the shop puts it first")
    assert {item["reason"] for item in rest} == {"sells best in milk, which they like"}


def test_who_has_said_nothing_gets_what_sells(isolated_api: Any) -> None:
    meet(isolated_api, "novice", preferences={"channel": "email"})
    meet(isolated_api, "dreamer", preferences={"categories": ["diamonds"]})
    mine, theirs = (shown(isolated_api, name)["items"] for name in ("novice", "dreamer"))
    assert mine == theirs == shown(isolated_api, "stranger")["items"]


def test_a_question_for_other_categories_is_answered_as_asked(isolated_api: Any) -> None:
    meet(isolated_api, "novice", preferences={"categories": ["milk"]})
    items = shown(isolated_api, "novice", categories=["bread"])["items"]
    assert all(int(item["product_id"][1:]) % 4 == 0 for item in items)


def test_of_who_does_not_allow_it_favourites_are_not_looked_at(isolated_api: Any) -> None:
    meet(isolated_api, "novice", preferences={"categories": ["milk"]})
    said = {"customer_id": "novice", "purpose": "profiling", "state": "denied", "at": "2025-07-01"}
    assert isolated_api.post("/v1/consents", said).status_code == 200
    assert shown(isolated_api, "novice")["items"] == shown(isolated_api, "stranger")["items"]


def test_after_the_first_basket_their_own_products_speak(isolated_api: Any) -> None:
    meet(isolated_api, "novice", preferences={"categories": ["milk"]})
    sale = {"order_id": "first", "customer_id": "novice", "product_id": "p03", "sold_at": "2025-07-24T10:00:00-04:00",
            "quantity": 1, "amount": "5.00"}  # fmt: skip
    assert isolated_api.post("/v1/transactions", sale).status_code == 200
    result = shown(isolated_api, "novice")
    assert not result["fallback"]
    assert result["items"][0]["product_id"] == "p03"
    assert result["items"][0]["reason"].startswith("bought once")


def test_a_new_product_says_that_it_is_new_where_nothing_else_speaks_for_it() -> None:
    """Product 7 is new; to one customer it goes with what they bought, and one list has words of its own."""
    rows = [(7, "new", -1, None), (7, "new", 3, None), (8, "new", -1, None), (7, "again", -1, None),
            (7, "new", -1, "sells best in tea, which they like")]  # fmt: skip
    ranked = pd.DataFrame(rows, columns=["product_key", "source", "because", "words"]).assign(days=4, since=-1)
    said = [each[0] if each and isinstance(each[0], str) else None for each in
            evidence.iter_evidence(cold_start.label_new_products(ranked, [7]))]  # fmt: skip
    assert said == [cold_start.NEW_PRODUCT_REASON, None, None, None, "sells best in tea, which they like"]
    assert next(evidence.iter_evidence(cold_start.label_new_products(ranked.drop(columns="words"), [7]))) == [
        cold_start.NEW_PRODUCT_REASON
    ]
    assert cold_start.label_new_products(ranked, []) is ranked
