"""Audiences: the customers most likely to buy a product, to buy in a category, or to redeem an offer."""

from typing import Any

import numpy as np
import pytest

from serving.audiences import audience

CUSTOMER_COUNT = 150


def post_audience(api: Any, **body: Any) -> dict[str, Any]:
    response = api.post("/v1/audience", body)
    assert response.status_code == 200, response.text
    return response.json()


def customer_ids(answer: dict[str, Any]) -> list[str]:
    return [result["customer_id"] for result in answer["results"]]


def test_customers_are_sorted_by_probability_and_listed_once(api: Any) -> None:
    answer = post_audience(api, product_ids=["p00"], n=20)
    scores = [result["score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len(set(customer_ids(answer))) == 20
    assert [result["rank"] for result in answer["results"]] == list(range(1, 21))
    assert answer["eligible"] == CUSTOMER_COUNT
    assert answer["expected_buyers"] == pytest.approx(sum(scores), abs=1e-3)


def test_the_first_customer_has_the_score_and_reason_of_their_own_recommendations(api: Any) -> None:
    first = post_audience(api, product_ids=["p00"], n=1)["results"][0]
    assert first["reason"].startswith("bought ")
    again = api.read(f"/v1/customers/{first['customer_id']}/recommendations?list=again&n=50").json()
    (own_item,) = [item for item in again["results"][0]["items"] if item["product_id"] == "p00"]
    assert own_item["reason"] == first["reason"]
    assert own_item["score"] == pytest.approx(first["score"])


def test_a_small_audience_has_lift_and_the_whole_population_has_none(api: Any) -> None:
    assert post_audience(api, product_ids=["p00"], n=15)["expected_lift"] > 3
    assert post_audience(api, product_ids=["p00"], n=CUSTOMER_COUNT)["expected_lift"] == 1


def test_an_audience_smaller_than_requested_has_a_reason(api: Any) -> None:
    assert post_audience(api, product_ids=["p00"], n=CUSTOMER_COUNT)["reason"] is None
    assert (
        post_audience(api, product_ids=["p00"], n=CUSTOMER_COUNT + 50)["reason"]
        == "150 of 200; the shop has figures of no others"
    )
    offer = post_audience(api, offer_id="summer-bread", n=CUSTOMER_COUNT)
    assert offer["reason"] == "100 of 150; no others may be asked about; see left_out"


def test_products_made_sensitive_since_the_nightly_run_leave_the_histories_without_consent(isolated_api: Any) -> None:
    """Breads become sensitive after the nightly run: the histories that the model reads lose them and nothing else."""
    from customers.catalogue import products
    from serving import runtime
    from serving.audiences import population

    server_runtime = runtime.open_runtime(isolated_api.shop)
    loaded = population.load_population(server_runtime, None)
    (before,) = population.iter_histories(server_runtime, loaded)
    breads = [f"p{number:02d}" for number in range(0, 40, 4)]
    assert (
        isolated_api.post("/v1/products", [{"product_id": name, "sensitive": True} for name in breads]).status_code
        == 200
    )
    consent = {"customer_id": "c000", "purpose": "profiling_sensitive", "state": "granted", "at": "2025-07-01"}
    assert isolated_api.post("/v1/consents", consent).status_code == 200
    (after,) = population.iter_histories(server_runtime, loaded)
    hidden = set(products.find_keys(isolated_api.shop, breads).values())
    assert set(before["product_keys"].iloc[0]) & hidden == set(after["product_keys"].iloc[0]) & hidden
    for old, new in zip(before.iloc[1:].to_dict("records"), after.iloc[1:].to_dict("records"), strict=True):
        positions = [position for position, product in enumerate(old["product_keys"]) if product not in hidden]
        for name in ("product_keys", "times", "last_days", "weights_28d"):
            assert new[name].tolist() == old[name][positions].tolist()


def test_expected_lift_is_the_mean_of_the_audience_over_the_mean_of_all() -> None:
    probabilities = np.array([0.1, 0.6, 0.2, 0.3])
    assert audience.expected_lift(probabilities, 2) == pytest.approx(((0.6 + 0.3) / 2) / (1.2 / 4))
    assert audience.expected_lift(np.zeros(3), 2) is None
    assert audience.expected_lift(np.empty(0), 2) is None


def test_a_category_score_is_the_chance_of_any_of_its_products(api: Any) -> None:
    bread = {
        result["customer_id"]: result["score"] for result in post_audience(api, categories=["BREAD"], n=150)["results"]
    }
    single = {
        result["customer_id"]: result["score"] for result in post_audience(api, product_ids=["p00"], n=150)["results"]
    }
    assert all(bread[name] >= single[name] - 1e-9 for name in single)
    reason = post_audience(api, categories=["bread"], n=1)["results"][0]["reason"]
    assert reason.split(":")[0] in {f"p{number:02d}" for number in range(0, 40, 4)}


def test_an_audience_has_only_customers_who_may_be_contacted_on_the_channel(api: Any) -> None:
    assert post_audience(api, product_ids=["p00"], channel="post")["eligible"] == CUSTOMER_COUNT
    empty = post_audience(api, product_ids=["p00"], channel="email")
    assert empty["results"] == []
    assert empty["left_out"] == [{"reason": "they have not allowed this channel", "customers": CUSTOMER_COUNT}]
    assert empty["reason"] == "nobody may be asked about; see left_out"


def test_customers_who_deny_profiling_are_left_out(api_without_profiling: Any) -> None:
    answer = post_audience(api_without_profiling, product_ids=["p00"])
    assert answer["results"] == []
    assert answer["left_out"] == [{"reason": "they have not allowed profiling", "customers": CUSTOMER_COUNT}]


def test_the_audience_of_a_sensitive_product_is_the_customers_who_have_consented(isolated_api: Any) -> None:
    product = {"product_id": "p00", "category": "bread", "sensitive": True}
    assert isolated_api.post("/v1/products", product).status_code == 200
    consents = [
        {"customer_id": f"c{number:03d}", "purpose": "profiling_sensitive", "state": "granted", "at": "2025-07-01"}
        for number in range(10)
    ]
    assert isolated_api.post("/v1/consents", consents).status_code == 200
    answer = post_audience(isolated_api, product_ids=["p00"])
    assert sorted(customer_ids(answer)) == [f"c{number:03d}" for number in range(10)]
    assert answer["left_out"] == [
        {"reason": "it is sensitive, and they have not allowed that such things are looked at", "customers": 140}
    ]
    by_category = post_audience(isolated_api, categories=["bread"], n=150)
    assert by_category["eligible"] == CUSTOMER_COUNT  # the other breads are not sensitive
    reasons = {result["customer_id"]: result["reason"] for result in by_category["results"]}
    assert not any(reason.startswith("p00") for name, reason in reasons.items() if name > "c009")


def test_buyers_of_a_product_never_bought_again_are_left_out(isolated_api: Any) -> None:
    owners = {result["customer_id"] for result in post_audience(isolated_api, product_ids=["p00"], n=150)["results"]
              if result["reason"].startswith("bought ")}  # fmt: skip
    product = {"product_id": "p00", "category": "bread", "repurchase": "never"}
    assert isolated_api.post("/v1/products", product).status_code == 200
    answer = post_audience(isolated_api, product_ids=["p00"], n=150)
    assert not owners & set(customer_ids(answer))
    assert answer["left_out"] == [
        {"reason": "they have bought it and are not to be offered it again yet", "customers": len(owners)}
    ]


def test_the_audience_of_an_offer_is_its_eligible_customers(api: Any) -> None:
    answer = post_audience(api, offer_id="summer-bread", n=150)
    assert answer["eligible"] == 100  # the recipients of the last mailing
    assert answer["left_out"] == [{"reason": "it is only for those who received its campaign", "customers": 50}]
    first = answer["results"][0]
    offers = api.read(f"/v1/customers/{first['customer_id']}/offers?n=50").json()["results"][0]["items"]
    (own_item,) = [item for item in offers if item["offer_id"] == "summer-bread"]
    assert (own_item["score"], own_item["reason"]) == (pytest.approx(first["score"]), first["reason"])
    assert answer["window_days"] is None


def test_an_offer_without_eligible_customers_has_a_reason(api: Any) -> None:
    ended = post_audience(api, offer_id="winter-bread")
    assert ended["results"] == []
    assert ended["left_out"] == [{"reason": "it has ended", "customers": CUSTOMER_COUNT}]
    unknown = post_audience(api, offer_id="no-such-offer")
    assert (unknown["results"], unknown["reason"]) == ([], "the shop does not know this offer")


def test_unknown_products_and_categories_have_no_audience(api: Any) -> None:
    answer = post_audience(api, product_ids=["p00", "no-such-thing"], n=1)
    assert answer["notes"] == ["product_ids: 1 of 2 are no products of this shop"]
    nothing = post_audience(api, product_ids=["no-such-thing"])
    assert (nothing["results"], nothing["reason"]) == ([], "the shop knows none of what was asked for")
    assert post_audience(api, categories=["?"])["reason"] == "the shop knows none of what was asked for"


@pytest.mark.parametrize(
    "body",
    [{}, {"product_ids": []}, {"product_ids": ["p00"], "categories": ["bread"]}, {"product_ids": ["p00"], "n": 0},
     {"product_ids": ["p00"], "n": 10_000}, {"offer_id": "milk-day", "categories": ["bread"]},
     {"product_ids": ["p00"], "channel": "pigeon"}],
)  # fmt: skip
def test_invalid_requests_are_refused(api: Any, body: dict[str, Any]) -> None:
    assert api.post("/v1/audience", body).status_code == 422


def test_a_till_may_not_request_audiences(api: Any) -> None:
    assert api.post("/v1/audience", {"product_ids": ["p00"]}, role="till").status_code == 403
