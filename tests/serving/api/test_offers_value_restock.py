"""Ranked offers with their reasons and the ineligible ones, expected value, and restock predictions."""

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from customers.loading.load import load_files

CATEGORIES = {"bread", "milk", "fruit", "paper"}


def only(response: Any) -> dict[str, Any]:
    """The only result of a response."""
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    return result


def offers(api: Any, name: str, **options: Any) -> dict[str, Any]:
    return only(api.post("/v1/offers", {"customer_ids": [name], **options}))


def offered(result: dict[str, Any]) -> list[str]:
    return [item["offer_id"] for item in result["items"]]


def ineligible(result: dict[str, Any]) -> dict[str, str]:
    return {entry["offer_id"]: entry["reason"] for entry in result["dropped"]}


# Offers ---------------------------------------------------------------------------------------------------


def test_offers_have_probability_expected_gain_reason_and_expiry(api: Any) -> None:
    result = offers(api, "c000")
    assert [item["rank"] for item in result["items"]] == [1, 2, 3, 4, 5]
    scores = [item["score"] for item in result["items"]]
    assert scores == sorted(scores, reverse=True)
    assert set(offered(result)) == {*(f"summer-{category}" for category in CATEGORIES), "milk-day"}
    for item in result["items"]:
        assert 0 < item["score"] < 1
        assert item["campaign_id"] == ("summer" if item["offer_id"].startswith("summer") else None)
        assert datetime.fromisoformat(item["expires_at"]) > datetime.fromisoformat(result["features_as_of"])
        assert item["reason"].startswith("bought what it is for" if item["source"] == "again" else "it is for")
        assert abs(float(item["expected_gain"])) < 10
        assert item["currency"] == "USD"


def test_every_ineligible_offer_is_named_with_its_reason(api: Any) -> None:
    result = offers(api, "c000")
    reasons = ineligible(result)
    assert reasons["may-bread"] == "it has ended"
    assert reasons["by-text"] == "the customer has not allowed any of its channels"
    assert reasons["big-basket"] == "its minimum spend is more than twice their usual basket"
    assert result["dropped_count"] == len(reasons) == 3 * 4 + 2
    assert not set(reasons) & set(offered(result))


def test_one_customer_gets_all_ineligible_offers_however_many(isolated_api: Any) -> None:
    """1,000 ended offers beside the nineteen: one customer gets all reasons, each of two customers at most 1,000."""
    ended = {"starts_at": "2024-01-01", "ends_at": "2024-02-01", "categories": ["milk"]}
    response = isolated_api.post(
        "/v1/catalogue/offers", [ended | {"offer_id": f"old-{number}"} for number in range(1_000)]
    )
    assert response.json()["inserted"] == 1_000
    result = offers(isolated_api, "c000")
    assert result["dropped_count"] == len(ineligible(result)) == 1_000 + 3 * 4 + 2
    both = isolated_api.post("/v1/offers", {"customer_ids": ["c000", "c001"]}).json()["results"]
    assert [len(each["dropped"]) for each in both] == [1_000, 1_000]
    assert both[0]["dropped_count"] == result["dropped_count"]


@pytest.mark.parametrize(("customers", "limit"), [(1, None), (2, 1_000), (20, 1_000), (40, 500), (1_000, 20)])
def test_the_more_customers_are_requested_the_fewer_ineligible_offers_each_gets(
    customers: int, limit: int | None
) -> None:
    from serving.api import predictions

    assert predictions.ineligible_limit(customers) == limit


def test_a_mailed_coupon_is_offered_only_to_recipients_of_its_campaign(api: Any) -> None:
    result = offers(api, "c120")
    assert offered(result) == ["milk-day"]
    assert "received its campaign" in ineligible(result)["summer-bread"]


def test_request_options_exclude_offers_and_do_not_reorder_the_others(api: Any) -> None:
    whole = offered(offers(api, "c000"))
    by_post = offers(api, "c000", channel="post")
    assert offered(by_post) == [name for name in whole if name != "milk-day"]
    assert ineligible(by_post)["milk-day"] == "it is not made on this channel"
    without = offers(api, "c000", exclude_offer_ids=[whole[0], "nothing"], n=2)
    assert offered(without) == whole[1:3]
    assert ineligible(without)[whole[0]] == "it was left out of the question"
    by_mail = offers(api, "c000", channel="email")
    assert offered(by_mail) == []
    assert offered(only(api.read("/v1/customers/c000/offers?channel=post&n=1"))) == offered(by_post)[:1]


def test_a_redeemed_coupon_is_not_offered_again(api: Any) -> None:
    coupon = offered(offers(api, "c003", channel="post"))[0]
    redemption = {
        "interaction_id": "r",
        "customer_id": "c003",
        "happened_at": "2025-07-24T10:00:00Z",
        "channel": "store",
        "kind": "redeemed",
        "campaign_id": "summer",
        "offer_id": coupon,
    }
    assert api.post("/v1/interactions", redemption).json()["refreshed"]
    result = offers(api, "c003")
    assert coupon not in offered(result)
    assert ineligible(result)[coupon] == "the customer has redeemed it already"


def test_a_coupon_redeemed_in_another_source_is_not_the_coupon_of_the_same_id(isolated_api: Any) -> None:
    """The web shop has a coupon of its own with the same id as one of the grocer's."""
    milk = {"offer_id": "milk-day", "starts_at": "2025-01-06", "ends_at": "2026-01-06", "categories": ["milk"]}
    assert isolated_api.post("/v1/catalogue/offers?source=web", milk).json()["inserted"] == 1
    customer = {"customer_id": "zoe"}
    assert isolated_api.post("/v1/customers?source=web", customer).json()["inserted"] == 1
    redemption = {
        "interaction_id": "r",
        "customer_id": "zoe",
        "happened_at": "2025-07-24T10:00:00Z",
        "channel": "web",
        "kind": "redeemed",
        "offer_id": "milk-day",
    }
    assert isolated_api.post("/v1/interactions?source=web", redemption).json()["inserted"] == 1
    result = offers(isolated_api, "zoe")
    assert ineligible(result)["web:milk-day"] == "the customer has redeemed it already"
    assert "files:milk-day" in offered(result) or "milk-day" in offered(result)


def test_the_offer_table_before_a_time_counts_no_later_redemption(isolated_api: Any) -> None:
    """A budget of 1 was spent seven days ago; as of eight days ago it was not."""
    from datetime import timedelta

    from customers import clock
    from customers.marketing import eligibility_inputs
    from serving import runtime

    small = {"offer_id": "small", "starts_at": "2025-01-06", "ends_at": "2026-01-06", "categories": ["milk"],
             "value": 1, "value_kind": "amount", "budget": 1}  # fmt: skip
    assert isolated_api.post("/v1/catalogue/offers", small).json()["inserted"] == 1
    now = clock.now(isolated_api.shop)
    redemption = {
        "interaction_id": "r",
        "customer_id": "c003",
        "happened_at": (now - timedelta(days=7)).isoformat(),
        "channel": "store",
        "kind": "redeemed",
        "offer_id": "small",
    }
    assert isolated_api.post("/v1/interactions", redemption).json()["inserted"] == 1
    inventory = runtime.open_runtime(isolated_api.shop).get_inventory()
    position = inventory.offer_table.offer_ids.index("small")
    is_budget_spent = [
        eligibility_inputs.with_budgets_as_of(isolated_api.shop, inventory.offer_table, before).is_budget_spent[
            position
        ]
        for before in (now - timedelta(days=8), None)
    ]
    assert is_budget_spent == [False, True]


def test_offers_may_be_requested_for_every_channel(api: Any) -> None:
    from customers.ledger.interactions import CHANNELS

    for channel in CHANNELS:
        assert offers(api, "c000", channel=channel)["known"]
    assert api.post("/v1/offers", {"customer_ids": ["c000"], "channel": "pigeon"}).status_code == 422


def test_an_offer_that_is_sold_out_or_has_ended_is_ineligible_at_once(isolated_api: Any) -> None:
    assert "milk-day" in offered(offers(isolated_api, "c000"))
    sold_out = [{"product_id": f"p{n:02d}", "category": "milk", "stock": 0} for n in range(1, 40, 4)]
    assert isolated_api.post("/v1/products", sold_out).status_code == 200
    assert ineligible(offers(isolated_api, "c000"))["milk-day"] == "all that it is for is sold out"
    restocked = {"product_id": "p01", "stock": 5}
    assert isolated_api.post("/v1/products", restocked).status_code == 200
    assert "milk-day" in offered(offers(isolated_api, "c000"))
    ended = {"offer_id": "milk-day", "starts_at": "2025-01-06", "ends_at": "2025-02-01", "categories": ["milk"]}
    assert isolated_api.post("/v1/catalogue/offers", ended, "campaign").json()["updated"] == 1
    assert ineligible(offers(isolated_api, "c000"))["milk-day"] == "it has ended"


def test_customers_without_features_get_the_offers_open_to_all(api: Any) -> None:
    for name in ("stranger", "quiet"):
        result = offers(api, name)
        assert result["fallback"]
        assert sorted(offered(result)) == ["big-basket", "milk-day"]  # their usual basket is unknown
        assert {item["reason"] for item in result["items"]} == {"it is made to everybody"}


def test_repeated_requests_return_and_store_the_same_offers_once(api: Any) -> None:
    results = [offers(api, "c004") for _ in range(10)]
    assert all(result == results[0] for result in results)
    shown = api.read("/v1/customers/c004/scores").json()["scores"]["offers"]
    assert [item["offer_id"] for item in shown["items"]] == offered(results[0])
    assert [item["score"] for item in shown["items"]] == [item["score"] for item in results[0]["items"]]
    assert len(stored_scores(api, "c004", "offers")) == 1


def test_the_profile_shows_no_offer_that_has_become_ineligible(
    isolated_api: Any, score_customers: Any, tmp_path: Path
) -> None:
    """Files loaded since the nightly run count: first a coupon is redeemed, then the consent to post is revoked."""

    def shown() -> list[str]:
        return offered(isolated_api.read("/v1/customers/c004/scores").json()["scores"]["offers"])

    def load_text(kind: str, text: str) -> None:
        (tmp_path / f"{kind}.csv").write_text(text, encoding="utf-8")
        load_files(isolated_api.shop, kind, [tmp_path / f"{kind}.csv"])

    score_customers(isolated_api.shop)
    before = shown()
    coupon = next(name for name in before if name.startswith("summer"))
    header = "interaction_id,customer_id,happened_at,channel,kind,offer_id\n"
    load_text("interactions", f"r,c004,2025-07-24T10:00:00Z,store,redeemed,{coupon}\n".join([header, ""]))
    assert shown() == [name for name in before if name != coupon]
    load_text("consents", "customer_id,purpose,state,at\nc004,marketing_post,revoked,2025-07-20\n")
    assert shown() == [name for name in before if not name.startswith("summer")] == ["milk-day"]


def stored_scores(api: Any, name: str, model: str) -> list[dict[str, Any]]:
    from customers.database import engine, schema
    from customers.people import lookup

    (key,) = lookup.find_keys(api.shop, [name]).values()
    query = (
        schema.scores.join(schema.score_runs, schema.scores.c.run_id == schema.score_runs.c.run_id)
        .select()
        .where(schema.scores.c.customer_key == key)
    )
    with engine.read_transaction(api.shop) as connection:
        return [dict(row) for row in connection.execute(query).mappings() if row["model"] == model]


@pytest.mark.parametrize("model", ["offers", "restock", "value"])
def test_online_scoring_stores_nothing_that_batch_scoring_has_not_stored(api: Any, model: str) -> None:
    before = stored_scores(api, "c004", model)
    assert api.post(f"/v1/{model}", {"customer_ids": ["c004"]}).status_code == 200
    assert stored_scores(api, "c004", model) == before
    assert len(before) == 1


def test_the_at_risk_list_suggests_the_best_offer(api: Any) -> None:
    for entry in api.read("/v1/at-risk?limit=10").json()["items"]:
        assert entry["suggested_offer_id"] == offered(offers(api, entry["customer_id"]))[0]


# Value ----------------------------------------------------------------------------------------------------


def test_value_is_expected_spend_over_the_horizon(api: Any) -> None:
    result = only(api.read("/v1/customers/c000/value"))
    assert (result["currency"], result["horizon_days"]) == ("USD", 28)
    assert float(result["expected"]) > 0
    assert result["expected"] == f"{float(result['expected']):.2f}"
    shown = api.read("/v1/customers/c000/scores").json()["scores"]["value"]
    assert (shown["expected"], shown["currency"]) == (result["expected"], "USD")


def test_value_at_risk_is_value_times_churn_probability(api: Any) -> None:
    for entry in api.read("/v1/at-risk?limit=10").json()["items"]:
        value = float(only(api.read(f"/v1/customers/{entry['customer_id']}/value"))["expected"])
        assert entry["currency"] == "USD"
        assert float(entry["value_at_risk"]) == pytest.approx(value * entry["churn_probability"], abs=0.005)


def test_the_at_risk_list_can_be_filtered_by_value_at_risk(api: Any) -> None:
    whole = api.read("/v1/at-risk?limit=1000").json()["items"]
    minimum = sorted(float(entry["value_at_risk"]) for entry in whole)[len(whole) // 2]
    filtered = api.read(f"/v1/at-risk?limit=1000&min_value={minimum}").json()["items"]
    assert filtered == [entry for entry in whole if float(entry["value_at_risk"]) >= minimum]
    response = api.read("/v1/at-risk?segment=canary")
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] == "segment"
    assert "canary" not in response.text


# Restock --------------------------------------------------------------------------------------------------


def test_restock_categories_are_sorted_by_probability(api: Any) -> None:
    for within_days in (7, 14, 60):
        items = only(api.post("/v1/restock", {"customer_ids": ["c000"], "within_days": within_days}))["items"]
        probabilities = [item["p"] for item in items]
        assert probabilities == sorted(probabilities, reverse=True)
        assert {item["category"] for item in items} <= CATEGORIES
        assert all(0 <= p <= 1 for p in probabilities)


def test_restock_probability_does_not_fall_with_the_horizon(api: Any) -> None:
    results = [only(api.read(f"/v1/customers/c000/restock?within_days={days}")) for days in (3, 7, 14, 28, 90)]
    probabilities = [{item["category"]: item["p"] for item in result["items"]} for result in results]
    for sooner, later in pairwise(probabilities):
        assert all(sooner[category] <= later[category] for category in sooner)


def test_a_restock_more_likely_than_not_has_an_expected_day(api: Any) -> None:
    for item in only(api.read("/v1/customers/c000/restock?within_days=14"))["items"]:
        if item["p"] > 0.5:
            assert datetime.fromisoformat(item["expected_at"])


@pytest.mark.parametrize("days", [0, 91, "canary"])
def test_restock_within_less_than_1_or_more_than_90_days_is_refused(api: Any, days: Any) -> None:
    response = api.post("/v1/restock", {"customer_ids": ["c000"], "within_days": days})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/within_days"
    assert "canary" not in response.text


# Sensitive ------------------------------------------------------------------------------------------------


def test_nothing_sensitive_is_named_without_its_own_consent(isolated_api: Any) -> None:
    """Paper becomes sensitive: no list, offer or restock result names it until the customer consents."""
    paper = [f"p{n:02d}" for n in range(3, 40, 4)]
    records = [{"product_id": name, "category": "paper", "sensitive": True} for name in paper]
    assert isolated_api.post("/v1/products", records).status_code == 200
    assert not is_named(isolated_api, "c000", paper)
    assert not is_named(isolated_api, "stranger", paper)
    consent = {"customer_id": "c000", "purpose": "profiling_sensitive", "state": "granted", "at": "2025-07-01"}
    assert isolated_api.post("/v1/consents", consent).json()["refreshed"]
    assert is_named(isolated_api, "c000", paper)


def is_named(api: Any, name: str, products: list[str]) -> bool:
    """Whether any response about a customer names one of these products, their category or an offer on them."""
    paths = ["recommendations?n=50", "offers?n=50", "restock", *(["scores"] if name != "stranger" else [])]
    texts = []
    for path in paths:
        response = api.read(f"/v1/customers/{name}/{path}").json()
        for result in response.get("results", ()):
            result.pop("dropped", None)
        texts.append(json.dumps(response.get("results", response)))
    return any(f'"{word}"' in text for text in texts for word in [*products, "paper", "summer-paper"])
