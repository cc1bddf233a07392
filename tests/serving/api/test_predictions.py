"""Predictions for customers: every requested id gets a result, in the requested order."""

import re
from datetime import datetime
from typing import Any

import pytest

HORIZON_DAYS = 28
ENVELOPE = {"request_id", "as_of", "models", "took_ms", "attribution_token", "results"}
BULK = {name: f"/v1/{name}" for name in ("recommendations", "offers", "churn", "next-purchase", "value", "restock")}


def only(response: Any) -> dict[str, Any]:
    """The only result of a response."""
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    return result


@pytest.mark.parametrize(("question", "path"), BULK.items())
def test_every_response_names_its_models_and_its_as_of(api: Any, question: str, path: str) -> None:
    answer = api.post(path, {"customer_ids": ["c000", "stranger"]}).json()
    assert set(answer) == ENVELOPE
    assert answer["models"][0].keys() == {"name", "version", "trained_at"}
    assert answer["models"][0]["version"] == "1"
    assert answer["as_of"] == answer["results"][0]["features_as_of"]
    assert answer["took_ms"] > 0
    assert answer["attribution_token"] != api.post(path, {"customer_ids": ["c000"]}).json()["attribution_token"]


@pytest.mark.parametrize(("question", "path"), BULK.items())
def test_results_come_in_the_requested_order(api: Any, question: str, path: str) -> None:
    ids = ["c003", "stranger", "c001", "c003", "files:c001", "quiet"]
    results = api.post(path, {"customer_ids": ids}).json()["results"]
    assert [result["customer_id"] for result in results] == ids
    assert [result["known"] for result in results] == [True, False, True, True, True, True]
    if question == "restock":  # a customer without a category to replenish gets the fallback
        assert [result["fallback"] for result in results] == [not result["items"] for result in results]
    else:
        assert [result["fallback"] for result in results] == [False, True, False, False, False, True]
    assert results[0] == results[3]
    assert {**results[2], "customer_id": "files:c001"} == results[4]
    assert results[1]["features_as_of"] is None


@pytest.mark.parametrize(("question", "path"), BULK.items())
def test_one_customer_gets_the_same_result_as_among_many(api: Any, question: str, path: str) -> None:
    alone = only(api.read(f"/v1/customers/c005/{question}"))
    among_many = api.post(path, {"customer_ids": ["c004", "c005"]}).json()["results"][1]
    assert alone == among_many


@pytest.mark.parametrize(("question", "path"), BULK.items())
def test_a_thousand_customers_are_answered_at_once(api: Any, question: str, path: str) -> None:
    ids = [f"c{number % 150:03d}" for number in range(1000)]
    assert len(api.post(path, {"customer_ids": ids}).json()["results"]) == 1000


# Churn ----------------------------------------------------------------------------------------------------


def test_churn_is_a_probability_with_a_band_and_reasons(api: Any) -> None:
    results = api.post("/v1/churn", {"customer_ids": [f"c{n:03d}" for n in range(150)]}).json()["results"]
    assert {result["horizon_days"] for result in results} == {HORIZON_DAYS}
    assert {result["band"] for result in results} == {"low", "medium", "high", "lapsed"}
    for result in results:
        p = result["probability"]
        assert 0 <= p <= 1
        assert result["band"] in ("lapsed", "low" if p < 0.2 else "medium" if p < 0.5 else "high")
        assert 1 <= len(result["reasons"]) <= 3


def test_a_customer_without_a_purchase_in_two_horizons_is_lapsed(api: Any) -> None:
    from customers.people import lookup
    from serving import runtime

    server_runtime = runtime.open_runtime(api.shop)
    ids = [f"c{n:03d}" for n in range(150)]
    keys = lookup.find_keys(api.shop, ids)
    features = server_runtime.load_features(server_runtime.champion("churn"), [keys[name] for name in ids])
    recency_days = dict(zip(ids, features["recency_days"], strict=False))
    for result in api.post("/v1/churn", {"customer_ids": ids}).json()["results"]:
        assert (result["band"] == "lapsed") == (recency_days[result["customer_id"]] > 2 * HORIZON_DAYS)


def test_a_churn_reason_states_the_recency_of_the_features(api: Any) -> None:
    """The days without a purchase in c000's reason are the feature recency_days."""
    from customers.people import lookup
    from serving import runtime

    server_runtime = runtime.open_runtime(api.shop)
    (key,) = lookup.find_keys(api.shop, ["c000"]).values()
    features = server_runtime.load_features(server_runtime.champion("churn"), [key]).iloc[0]
    reasons = only(api.read("/v1/customers/c000/churn"))["reasons"]
    silence = [reason for reason in reasons if "silent for" in reason]
    assert all(f"silent for {features['recency_days']:.0f}" in reason for reason in silence)


def test_customers_without_features_get_the_population_average_and_no_reasons(api: Any) -> None:
    unknown, without_purchases = api.post("/v1/churn", {"customer_ids": ["stranger", "quiet"]}).json()["results"]
    assert unknown["probability"] == without_purchases["probability"]
    assert 0 < unknown["probability"] < 1
    assert unknown["reasons"] == without_purchases["reasons"] == []


# Next purchase --------------------------------------------------------------------------------------------


def test_churn_probability_and_purchase_curve_agree(api: Any) -> None:
    body = {"customer_ids": [*(f"c{n:03d}" for n in range(60)), "stranger"]}
    churn = api.post("/v1/churn", body).json()["results"]
    next_purchase = api.post("/v1/next-purchase", body).json()["results"]
    for churn_result, curve_result in zip(churn, next_purchase, strict=True):
        assert curve_result["p"][str(HORIZON_DAYS)] == pytest.approx(1 - churn_result["probability"], abs=1e-9)


def test_the_purchase_curve_never_falls_and_ends_where_the_history_does(api: Any) -> None:
    for result in api.post("/v1/next-purchase", {"customer_ids": [f"c{n:03d}" for n in range(60)]}).json()["results"]:
        p = result["p"]
        assert list(p) == ["7", "14", "28", "90"]
        assert 0 <= p["7"] <= p["14"] <= p["28"] <= 1
        assert p["90"] is None  # the curve is 60 days long
        days = result["days"]
        quantiles = [day for day in (days["p10"], days["p50"], days["p90"]) if day is not None]
        assert quantiles == sorted(quantiles)
        assert all(1 <= day <= 60 for day in quantiles)


def test_a_purchase_is_expected_after_the_median_days_and_never_in_the_past(api: Any) -> None:
    answer = api.post("/v1/next-purchase", {"customer_ids": [f"c{n:03d}" for n in range(60)]}).json()
    as_of = datetime.fromisoformat(answer["as_of"])
    for result in answer["results"]:
        median_days = result["days"]["p50"]
        if median_days is None:
            assert result["expected_at"] is None
            continue
        expected = datetime.fromisoformat(result["expected_at"])
        assert expected.utcoffset().total_seconds() == 0
        assert expected >= as_of
        zone = api.shop.zone
        assert (expected.astimezone(zone).date() - as_of.astimezone(zone).date()).days == median_days


# Recommendations ------------------------------------------------------------------------------------------


def test_every_recommendation_has_rank_score_source_and_reason(api: Any) -> None:
    result = only(api.post("/v1/recommendations", {"customer_ids": ["c000"], "n": 5}))
    assert [entry["rank"] for entry in result["items"]] == [1, 2, 3, 4, 5]
    scores = [entry["score"] for entry in result["items"]]
    assert scores == sorted(scores, reverse=True)
    for entry in result["items"]:
        assert entry.keys() == {"rank", "product_id", "score", "source", "reason", "expires_at"}
        assert entry["expires_at"] is None
        assert entry["reason"].startswith("bought" if entry["source"] == "again" else ("customers", "sells"))


def test_the_lists_again_and_new_share_no_product(api: Any) -> None:
    body = {"customer_ids": ["c000"], "n": 50}
    again, new = (only(api.post("/v1/recommendations", {**body, "list": name})) for name in ("again", "new"))
    bought = {entry["product_id"] for entry in again["items"]}
    assert len(bought) == 6  # c000's favourites
    assert {entry["source"] for entry in again["items"]} == {"again"}
    assert not bought & {entry["product_id"] for entry in new["items"]}
    assert len(new["items"]) == 40 - 6


def test_excluded_products_are_replaced_by_the_next_ones(api: Any) -> None:
    before = [entry["product_id"] for entry in only(api.read("/v1/customers/c000/recommendations"))["items"]]
    body = {"customer_ids": ["c000"], "exclude_product_ids": [*before[:3], "nothing-we-sell"]}
    after = [entry["product_id"] for entry in only(api.post("/v1/recommendations", body))["items"]]
    assert len(after) == len(before) == 10
    assert not set(before[:3]) & set(after)
    assert after[:7] == before[3:]


def test_a_list_limited_to_a_category_has_only_its_products(api: Any) -> None:
    body = {"customer_ids": ["c000", "stranger"], "categories": ["BREAD"], "n": 50}
    for result in api.post("/v1/recommendations", body).json()["results"]:
        assert len(result["items"]) == 10
        assert all(int(entry["product_id"][1:]) % 4 == 0 for entry in result["items"])


def test_a_list_limited_to_an_unknown_category_is_empty(api: Any) -> None:
    assert only(api.post("/v1/recommendations", {"customer_ids": ["c000"], "categories": ["?"]}))["items"] == []


@pytest.mark.parametrize("name", ["any", "again", "new"])
def test_customers_without_features_get_the_best_sellers(api: Any, name: str) -> None:
    body = {"customer_ids": ["stranger", "quiet"], "list": name, "n": 3}
    for result in api.post("/v1/recommendations", body).json()["results"]:
        assert result["fallback"]
        assert len(result["items"]) == 3
        assert {entry["source"] for entry in result["items"]} == {"popular"}
        assert {entry["reason"] for entry in result["items"]} == {"sells best in the shop"}


def test_customers_get_different_recommendations(api: Any) -> None:
    results = api.post("/v1/recommendations", {"customer_ids": ["c000", "c001", "c002"]}).json()["results"]
    assert len({tuple(entry["product_id"] for entry in result["items"]) for result in results}) == 3


# The profile ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "is_shown"), [("admin", True), ("agent", True), ("campaign", False), ("analyst", False)]
)
def test_personal_data_is_shown_only_to_roles_that_serve_customers(api: Any, role: str, is_shown: bool) -> None:
    response = api.read("/v1/customers/c000", role)
    assert response.status_code == 200
    assert ("Canarybird" in response.text) == is_shown
    assert ("w.canarybird@example.com" in response.text) == is_shown
    assert response.json()["customer_id"] == "c000"


def test_a_profile_shows_orders_newest_first(api: Any) -> None:
    orders = api.read("/v1/customers/c000").json()["orders"]
    assert 1 <= len(orders) <= 50
    sold = [order["sold_at"] for order in orders]
    assert sold == sorted(sold, reverse=True)


@pytest.mark.parametrize("path", ["/v1/customers/stranger", "/v1/customers/stranger/scores"])
def test_an_unknown_customer_has_no_profile(api: Any, path: str) -> None:
    response = api.read(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_a_restock_reason_states_how_often_and_when_the_category_was_bought(api: Any) -> None:
    """From the category history: how often it was bought, the usual gap, and how long ago the last purchase was."""
    body = {"customer_ids": [f"c{number:03}" for number in range(10)]}
    for result in api.post("/v1/restock", body).json()["results"]:
        assert result["fallback"] == (not result["items"])
        for item in result["items"]:
            assert re.fullmatch(r"bought (twice|\d+ times), (usually every (\d+ days|day), )?last .+", item["reason"])
