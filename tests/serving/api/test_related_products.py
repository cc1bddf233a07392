"""Related products: substitutes, complements and up-sell; sensitive products only for customers who have consented."""

from typing import Any

import pytest

from serving import runtime
from serving.api import related_products


def post_similar(api: Any, *product_ids: str, **options: Any) -> dict[str, Any]:
    response = api.post("/v1/similar", {"product_ids": list(product_ids), **options})
    assert response.status_code == 200, response.text
    return response.json()


def products(result: dict[str, Any]) -> list[str]:
    return [item["product_id"] for item in result["items"]]


def test_every_response_has_the_envelope(api: Any) -> None:
    answer = post_similar(api, "p00", "p01", how="together", n=3)
    assert answer.keys() == {
        "request_id", "as_of", "models", "took_ms", "attribution_token", "results", "customer_known", "notes"
    }  # fmt: skip
    assert [result["product_id"] for result in answer["results"]] == ["p00", "p01"]
    for result in answer["results"]:
        assert result["known"]
        assert [item["rank"] for item in result["items"]] == list(range(1, len(result["items"]) + 1))
        assert result["product_id"] not in products(result)


def test_complements_have_co_purchases_as_their_reason(api: Any) -> None:
    (result,) = post_similar(api, "p00", how="together")["results"]
    assert not result["fallback"]
    assert result["items"]
    assert {item["source"] for item in result["items"]} == {"together"}
    assert all("bought both at once" in item["reason"] or "next visit" in item["reason"] for item in result["items"])


def test_substitutes_are_of_the_same_category(api: Any) -> None:
    (result,) = post_similar(api, "p00", n=5)["results"]
    assert len(result["items"]) == 5
    assert all(int(name[1:]) % 4 == 0 for name in products(result))
    assert all(item["reason"].startswith("of the same kind: bread") for item in result["items"])


def test_upsell_products_are_dearer_and_the_reason_has_both_prices(api: Any) -> None:
    # The price of product n is 2 + n % 7, so p00, p07, p14 and so on cost 2.
    (result,) = post_similar(api, "p28", how="upsell", n=50)["results"]
    prices = [2 + int(name[1:]) % 7 for name in products(result)]
    assert prices
    assert all(2 * 1.1 <= price <= 2 * 2.5 for price in prices)
    assert result["items"][0]["reason"].endswith(f"{prices[0]}.00 instead of 2.00 USD")


def test_without_a_dearer_product_the_list_is_empty_with_a_reason(api: Any) -> None:
    (result,) = post_similar(api, "p20", how="upsell")["results"]  # it costs 8, and nothing costs more
    assert (result["items"], result["fallback"]) == ([], False)
    assert result["reason"] == "nothing dearer of its kind is sold here, or its price is not known"


def test_an_unknown_product_gets_best_sellers_as_fallback(api: Any) -> None:
    (result,) = post_similar(api, "no-such-thing", n=4)["results"]
    assert (result["known"], result["fallback"]) == (False, True)
    assert result["reason"] == "the shop does not know this product"
    assert {item["source"] for item in result["items"]} == {"popular"}
    assert len(result["items"]) == 4


def test_a_new_product_gets_substitutes_and_complements_of_its_category(isolated_api: Any) -> None:
    from customers.parquet import mirror
    from features.products import co_purchases

    assert isolated_api.post("/v1/products", {"product_id": "novelty", "category": "bread"}).status_code == 200
    mirror.refresh(isolated_api.shop)
    path = co_purchases.co_purchases_path(runtime.open_runtime(isolated_api.shop).features.folder)
    path.touch()  # as the next nightly run does
    (substitutes,) = post_similar(isolated_api, "novelty", n=3)["results"]
    assert all(int(name[1:]) % 4 == 0 for name in products(substitutes))
    (complements,) = post_similar(isolated_api, "novelty", n=3, how="together")["results"]
    assert {item["reason"] for item in complements["items"]} == {"goes with what sells best of its kind"}


def test_a_customer_gets_products_related_to_their_own_purchases(api: Any) -> None:
    answer = post_similar(api, customer_id="c000", how="upsell")
    again = api.post("/v1/recommendations", {"customer_ids": ["c000"], "list": "again", "n": 50}).json()
    own_products = {item["product_id"] for item in again["results"][0]["items"]}
    assert {result["product_id"] for result in answer["results"]} == own_products


def test_a_customer_without_purchases_gets_a_hint_to_name_products(api: Any) -> None:
    answer = post_similar(api, customer_id="quiet")
    assert (answer["results"], answer["customer_known"]) == ([], True)
    assert answer["notes"] == ["they have bought nothing that may be looked at; " + related_products.ALTERNATIVES_HINT]


def test_an_unknown_customer_and_one_who_denies_profiling_get_different_notes(api_without_profiling: Any) -> None:
    unknown, denied = (
        post_similar(api_without_profiling, customer_id="stranger"),
        post_similar(api_without_profiling, customer_id="c000"),
    )
    assert (unknown["results"], unknown["customer_known"]) == ([], False)
    assert (denied["results"], denied["customer_known"]) == ([], True)
    assert unknown["notes"] == [f"{related_products.UNKNOWN_CUSTOMER_NOTE}; {related_products.ALTERNATIVES_HINT}"]
    assert denied["notes"] == [f"{related_products.PROFILING_NOT_ALLOWED}; {related_products.ALTERNATIVES_HINT}"]
    assert post_similar(api_without_profiling, "p00")["customer_known"] is None
    assert post_similar(api_without_profiling, "p00", customer_id="stranger")["notes"] == [
        related_products.UNKNOWN_CUSTOMER_NOTE
    ]


def test_a_list_shorter_than_requested_has_a_reason(isolated_api: Any) -> None:
    """The shop has ten breads: each has nine substitutes, and eight when one of those is sensitive."""
    (whole,) = post_similar(isolated_api, "p00", n=20)["results"]
    assert len(whole["items"]) == 9
    assert whole["reason"] == "9 of 20; its kind has no more"
    assert post_similar(isolated_api, "p00", n=9)["results"][0]["reason"] is None
    assert (
        isolated_api.post("/v1/products", {"product_id": "p04", "category": "bread", "sensitive": True}).status_code
        == 200
    )
    (shorter,) = post_similar(isolated_api, "p00", n=9)["results"]
    assert shorter["reason"] == f"8 of 9; {related_products.SOME_EXCLUDED}"


def test_before_co_purchases_are_computed_best_sellers_without_the_product_itself_are_the_fallback(
    isolated_api: Any,
) -> None:
    from features.products import co_purchases

    co_purchases.co_purchases_path(runtime.open_runtime(isolated_api.shop).features.folder).unlink()
    (unknown,) = post_similar(isolated_api, "no-such-thing", n=3)["results"]
    best_sellers = products(unknown)
    (result,) = post_similar(isolated_api, best_sellers[0], n=2)["results"]
    assert (products(result), result["fallback"], result["reason"]) == (
        best_sellers[1:],
        True,
        related_products.NOT_COMPUTED_YET,
    )
    assert [item["rank"] for item in result["items"]] == [1, 2]


@pytest.mark.parametrize(
    "body",
    [{}, {"product_ids": []}, {"product_ids": ["p00"], "n": 0}, {"product_ids": ["p00"], "n": 10_000},
     {"product_ids": ["p00"], "how": "cheaper"}, {"product_ids": [""]}, {"product_ids": ["p00"] * 101}],
)  # fmt: skip
def test_invalid_requests_are_refused(api: Any, body: dict[str, Any]) -> None:
    assert api.post("/v1/similar", body).status_code == 422


def test_a_sensitive_product_is_listed_only_for_a_customer_who_has_consented(isolated_api: Any) -> None:
    complements = products(post_similar(isolated_api, "p00", how="together", n=50)["results"][0])
    sensitive = complements[0]
    number = int(sensitive[1:])
    product = {"product_id": sensitive, "category": ("bread", "milk", "fruit", "paper")[number % 4], "sensitive": True}
    assert isolated_api.post("/v1/products", product).status_code == 200
    consent = {"customer_id": "c001", "purpose": "profiling_sensitive", "state": "granted", "at": "2025-07-01"}
    assert isolated_api.post("/v1/consents", consent).status_code == 200
    for how in ("together", "similar", "upsell"):
        for customer in ({}, {"customer_id": "c000"}):
            for result in post_similar(isolated_api, "p00", "p04", "p08", "nothing", how=how, n=50, **customer)[
                "results"
            ]:
                assert sensitive not in products(result)
    assert sensitive in products(
        post_similar(isolated_api, "p00", how="together", n=50, customer_id="c001")["results"][0]
    )


def test_before_the_first_nightly_run_the_request_is_refused(api_before_first_run: Any) -> None:
    response = api_before_first_run.post("/v1/similar", {"product_ids": ["p00"]})
    assert response.status_code == 503
    assert "regulars run" in response.json()["detail"]
