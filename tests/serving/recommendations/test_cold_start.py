"""Cold start: best sellers of favourite categories first, then of the shop, until the first purchase."""

from typing import Any

import pandas as pd
import pytest

from serving.recommendations import cold_start, evidence


def recommend(api: Any, name: str, **options: Any) -> dict[str, Any]:
    response = api.post("/v1/recommendations", {"customer_ids": [name], **options})
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    return result


def add_prospect(api: Any, name: str, **fields: Any) -> None:
    assert api.post("/v1/customers", {"customer_id": name, "stage": "prospect", **fields}).status_code == 200


@pytest.mark.parametrize(
    "profile",
    [
        {"preferences": {"favourite_categories": ["Milk", "diamonds"], "channel": "email"}},
        {"preferences": {"categories": "milk"}},
        {"favourite_category": "milk"},
    ],
)
def test_favourite_categories_come_first_and_then_best_sellers(isolated_api: Any, profile: dict[str, Any]) -> None:
    add_prospect(isolated_api, "novice", **profile)
    result = recommend(isolated_api, "novice", n=20)
    assert (result["known"], result["fallback"]) == (True, True)
    milk, others = result["items"][:10], result["items"][10:]
    assert all(int(item["product_id"][1:]) % 4 == 1 for item in milk)
    assert {item["reason"] for item in milk} == {"sells best in milk, which they like"}
    assert not any(int(item["product_id"][1:]) % 4 == 1 for item in others)
    assert {item["reason"] for item in others} == {"sells best in the shop"}
    assert [item["rank"] for item in result["items"]] == list(range(1, 21))


def test_a_pinned_product_has_its_own_reason(isolated_api: Any) -> None:
    product = {"product_id": "novelty", "category": "milk", "labels": "launch"}
    assert isolated_api.post("/v1/products", product).status_code == 200
    add_prospect(isolated_api, "novice", preferences={"categories": ["milk"]})
    pinned, *rest = recommend(isolated_api, "novice", n=5, pin=["launch"])["items"]
    assert (pinned["product_id"], pinned["reason"]) == ("novelty", "the shop puts it first")
    assert {item["reason"] for item in rest} == {"sells best in milk, which they like"}


def test_a_customer_without_favourites_gets_best_sellers(isolated_api: Any) -> None:
    add_prospect(isolated_api, "novice", preferences={"channel": "email"})
    add_prospect(isolated_api, "dreamer", preferences={"categories": ["diamonds"]})
    without_categories, unknown_category = (recommend(isolated_api, name)["items"] for name in ("novice", "dreamer"))
    assert without_categories == unknown_category == recommend(isolated_api, "stranger")["items"]


def test_requested_categories_take_precedence_over_favourites(isolated_api: Any) -> None:
    add_prospect(isolated_api, "novice", preferences={"categories": ["milk"]})
    items = recommend(isolated_api, "novice", categories=["bread"])["items"]
    assert all(int(item["product_id"][1:]) % 4 == 0 for item in items)


def test_favourites_are_not_used_when_profiling_is_denied(isolated_api: Any) -> None:
    add_prospect(isolated_api, "novice", preferences={"categories": ["milk"]})
    consent = {"customer_id": "novice", "purpose": "profiling", "state": "denied", "at": "2025-07-01"}
    assert isolated_api.post("/v1/consents", consent).status_code == 200
    assert recommend(isolated_api, "novice")["items"] == recommend(isolated_api, "stranger")["items"]


def test_after_the_first_purchase_the_list_comes_from_the_history(isolated_api: Any) -> None:
    add_prospect(isolated_api, "novice", preferences={"categories": ["milk"]})
    sale = {"order_id": "first", "customer_id": "novice", "product_id": "p03", "sold_at": "2025-07-24T10:00:00-04:00",
            "quantity": 1, "amount": "5.00"}  # fmt: skip
    assert isolated_api.post("/v1/transactions", sale).status_code == 200
    result = recommend(isolated_api, "novice")
    assert not result["fallback"]
    assert result["items"][0]["product_id"] == "p03"
    assert result["items"][0]["reason"].startswith("bought once")


def test_a_new_product_without_other_evidence_is_labelled_new() -> None:
    """Product 7 is new; one row has a complement as evidence, and one row already has a reason text."""
    rows = [(7, "new", -1, None), (7, "new", 3, None), (8, "new", -1, None), (7, "again", -1, None),
            (7, "new", -1, "sells best in tea, which they like")]  # fmt: skip
    ranked = pd.DataFrame(rows, columns=["product_key", "source", "evidence_key", "words"]).assign(days=4, since=-1)
    reasons = [each[0] if each and isinstance(each[0], str) else None for each in
            evidence.iter_evidence(cold_start.label_new_products(ranked, [7]))]  # fmt: skip
    assert reasons == [cold_start.NEW_PRODUCT_REASON, None, None, None, "sells best in tea, which they like"]
    assert next(evidence.iter_evidence(cold_start.label_new_products(ranked.drop(columns="words"), [7]))) == [
        cold_start.NEW_PRODUCT_REASON
    ]
    assert cold_start.label_new_products(ranked, []) is ranked
