"""A product's page: what stands in for it, what goes with it, what is dearer; and never what is sensitive."""

from typing import Any

import pytest

from serving import runtime
from serving.api import related_products


def ask(api: Any, *product_ids: str, **more: Any) -> dict[str, Any]:
    response = api.post("/v1/similar", {"product_ids": list(product_ids), **more})
    assert response.status_code == 200, response.text
    return response.json()


def products(result: dict[str, Any]) -> list[str]:
    return [item["product_id"] for item in result["items"]]


def test_every_answer_is_in_its_envelope(api: Any) -> None:
    answer = ask(api, "p00", "p01", how="together", n=3)
    assert answer.keys() == {
        "request_id", "as_of", "models", "took_ms", "attribution_token", "results", "customer_known", "notes"
    }  # fmt: skip
    assert [result["product_id"] for result in answer["results"]] == ["p00", "p01"]
    for result in answer["results"]:
        assert result["known"]
        assert [item["rank"] for item in result["items"]] == list(range(1, len(result["items"]) + 1))
        assert result["product_id"] not in products(result)


def test_what_goes_together_was_bought_together_by_so_many_customers(api: Any) -> None:
    (result,) = ask(api, "p00", how="together")["results"]
    assert not result["fallback"]
    assert result["items"]
    assert {item["source"] for item in result["items"]} == {"together"}
    assert all("bought both at once" in item["reason"] or "next visit" in item["reason"] for item in result["items"])


def test_what_stands_in_is_of_the_same_kind(api: Any) -> None:
    (result,) = ask(api, "p00", n=5)["results"]
    assert len(result["items"]) == 5
    assert all(int(name[1:]) % 4 == 0 for name in products(result))
    assert all(item["reason"].startswith("of the same kind: bread") for item in result["items"])


def test_upsell_is_dearer_and_says_by_how_much(api: Any) -> None:
    # A product's price is 2 plus the rest of its number by 7; p00, p07 and so on cost 2.
    (result,) = ask(api, "p28", how="upsell", n=50)["results"]
    prices = [2 + int(name[1:]) % 7 for name in products(result)]
    assert prices
    assert all(2 * 1.1 <= price <= 2 * 2.5 for price in prices)
    assert result["items"][0]["reason"].endswith(f"{prices[0]}.00 instead of 2.00 USD")


def test_where_nothing_is_dearer_the_answer_says_so(api: Any) -> None:
    (result,) = ask(api, "p20", how="upsell")["results"]  # it costs 8, and nothing costs more
    assert (result["items"], result["fallback"]) == ([], False)
    assert result["reason"] == "nothing dearer of its kind is sold here, or its price is not known"


def test_an_unknown_product_gets_what_sells_in_the_shop(api: Any) -> None:
    (result,) = ask(api, "no-such-thing", n=4)["results"]
    assert (result["known"], result["fallback"]) == (False, True)
    assert result["reason"] == "the shop does not know this product"
    assert {item["source"] for item in result["items"]} == {"popular"}
    assert len(result["items"]) == 4


def test_a_new_product_is_judged_by_its_kind(isolated_api: Any) -> None:
    from customers.parquet import mirror
    from features.products import co_purchases

    assert isolated_api.post("/v1/products", {"product_id": "novelty", "category": "bread"}).status_code == 200
    mirror.refresh(isolated_api.shop)
    place = co_purchases.co_purchases_path(runtime.open_runtime(isolated_api.shop).features.folder)
    place.touch()  # as the next night does
    (stands_in,) = ask(isolated_api, "novelty", n=3)["results"]
    assert all(int(name[1:]) % 4 == 0 for name in products(stands_in))
    (beside,) = ask(isolated_api, "novelty", n=3, how="together")["results"]
    assert {item["reason"] for item in beside["items"]} == {"goes with what sells best of its kind"}


def test_a_customer_is_asked_for_by_their_own_products(api: Any) -> None:
    answer = ask(api, customer_id="c000", how="upsell")
    again = api.post("/v1/recommendations", {"customer_ids": ["c000"], "list": "again", "n": 50}).json()
    mine = {item["product_id"] for item in again["results"][0]["items"]}
    assert {result["product_id"] for result in answer["results"]} == mine


def test_a_customer_who_has_bought_nothing_is_told_to_name_products(api: Any) -> None:
    answer = ask(api, customer_id="quiet")
    assert (answer["results"], answer["customer_known"]) == ([], True)
    assert answer["notes"] == ["they have bought nothing that may be looked at; " + related_products.ALTERNATIVES_HINT]


def test_a_stranger_is_told_apart_from_who_keeps_to_themselves(private: Any) -> None:
    stranger, reserved = ask(private, customer_id="stranger"), ask(private, customer_id="c000")
    assert (stranger["results"], stranger["customer_known"]) == ([], False)
    assert (reserved["results"], reserved["customer_known"]) == ([], True)
    assert stranger["notes"] == [f"{related_products.UNKNOWN_CUSTOMER_NOTE}; {related_products.ALTERNATIVES_HINT}"]
    assert reserved["notes"] == [f"{related_products.PROFILING_NOT_ALLOWED}; {related_products.ALTERNATIVES_HINT}"]
    assert ask(private, "p00")["customer_known"] is None
    assert ask(private, "p00", customer_id="stranger")["notes"] == [related_products.UNKNOWN_CUSTOMER_NOTE]


def test_where_there_are_fewer_than_asked_for_it_is_said_why(isolated_api: Any) -> None:
    """There are ten breads: nine beside each; and where one of them is never shown, eight."""
    (whole,) = ask(isolated_api, "p00", n=20)["results"]
    assert len(whole["items"]) == 9
    assert whole["reason"] == "9 of 20; its kind has no more"
    assert ask(isolated_api, "p00", n=9)["results"][0]["reason"] is None
    assert (
        isolated_api.post("/v1/products", {"product_id": "p04", "category": "bread", "sensitive": True}).status_code
        == 200
    )
    (less,) = ask(isolated_api, "p00", n=9)["results"]
    assert less["reason"] == f"8 of 9; {related_products.SOME_EXCLUDED}"


def test_before_companions_are_known_the_best_sellers_stand_in_without_the_product_itself(isolated_api: Any) -> None:
    from features.products import co_purchases

    co_purchases.co_purchases_path(runtime.open_runtime(isolated_api.shop).features.folder).unlink()
    (stranger,) = ask(isolated_api, "no-such-thing", n=3)["results"]
    best = products(stranger)
    (result,) = ask(isolated_api, best[0], n=2)["results"]
    assert (products(result), result["fallback"], result["reason"]) == (
        best[1:],
        True,
        related_products.NOT_COMPUTED_YET,
    )
    assert [item["rank"] for item in result["items"]] == [1, 2]


@pytest.mark.parametrize(
    "question",
    [{}, {"product_ids": []}, {"product_ids": ["p00"], "n": 0}, {"product_ids": ["p00"], "n": 10_000},
     {"product_ids": ["p00"], "how": "cheaper"}, {"product_ids": [""]}, {"product_ids": ["p00"] * 101}],
)  # fmt: skip
def test_questions_that_cannot_be_answered_are_refused(api: Any, question: dict[str, Any]) -> None:
    assert api.post("/v1/similar", question).status_code == 422


def test_what_is_sensitive_is_shown_only_to_who_allows_it(isolated_api: Any) -> None:
    beside = products(ask(isolated_api, "p00", how="together", n=50)["results"][0])
    guarded = beside[0]
    number = int(guarded[1:])
    marked = {"product_id": guarded, "category": ("bread", "milk", "fruit", "paper")[number % 4], "sensitive": True}
    assert isolated_api.post("/v1/products", marked).status_code == 200
    consent = {"customer_id": "c001", "purpose": "profiling_sensitive", "state": "granted", "at": "2025-07-01"}
    assert isolated_api.post("/v1/consents", consent).status_code == 200
    for how in ("together", "similar", "upsell"):
        for who in ({}, {"customer_id": "c000"}):
            for result in ask(isolated_api, "p00", "p04", "p08", "nothing", how=how, n=50, **who)["results"]:
                assert guarded not in products(result)
    assert guarded in products(ask(isolated_api, "p00", how="together", n=50, customer_id="c001")["results"][0])


def test_without_any_night_there_is_nobody_to_answer(unopened: Any) -> None:
    response = unopened.post("/v1/similar", {"product_ids": ["p00"]})
    assert response.status_code == 503
    assert "regulars run" in response.json()["detail"]
