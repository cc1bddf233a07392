"""Which offers are made to whom, in which order and why; what customers will spend; and what they need again."""

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from customers.loading import load as loading_load

CATEGORIES = {"bread", "milk", "fruit", "paper"}


def only(response: Any) -> dict[str, Any]:
    """The one result of an answer."""
    assert response.status_code == 200, response.text
    (result,) = response.json()["results"]
    return result


def offers(api: Any, name: str, **wish: Any) -> dict[str, Any]:
    return only(api.post("/v1/offers", {"customer_ids": [name], **wish}))


def made(result: dict[str, Any]) -> list[str]:
    return [item["offer_id"] for item in result["items"]]


def dropped(result: dict[str, Any]) -> dict[str, str]:
    return {entry["offer_id"]: entry["reason"] for entry in result["dropped"]}


# Offers ---------------------------------------------------------------------------------------------------


def test_offers_are_made_with_chance_gain_reason_and_end(api: Any) -> None:
    result = offers(api, "c000")
    assert [item["rank"] for item in result["items"]] == [1, 2, 3, 4, 5]
    scores = [item["score"] for item in result["items"]]
    assert scores == sorted(scores, reverse=True)
    assert set(made(result)) == {*(f"summer-{category}" for category in CATEGORIES), "milk-day"}
    for item in result["items"]:
        assert 0 < item["score"] < 1
        assert item["campaign_id"] == ("summer" if item["offer_id"].startswith("summer") else None)
        assert datetime.fromisoformat(item["expires_at"]) > datetime.fromisoformat(result["features_as_of"])
        assert item["reason"].startswith("bought what it is for" if item["source"] == "again" else "it is for")
        assert abs(float(item["expected_gain"])) < 10
        assert item["currency"] == "USD"


def test_every_other_offer_is_named_with_the_reason(api: Any) -> None:
    result = offers(api, "c000")
    why = dropped(result)
    assert why["may-bread"] == "it has ended"
    assert why["by-text"] == "the customer has not allowed any of its channels"
    assert why["big-basket"] == "its minimum spend is more than twice their usual basket"
    assert result["dropped_count"] == len(why) == 3 * 4 + 2
    assert not set(why) & set(made(result))


def test_one_customer_is_told_of_every_offer_however_many(isolated_api: Any) -> None:
    """A thousand old offers beside the nineteen; of two customers, each is told of a thousand at most."""
    old = {"starts_at": "2024-01-01", "ends_at": "2024-02-01", "categories": ["milk"]}
    sent = isolated_api.post("/v1/catalogue/offers", [old | {"offer_id": f"old-{number}"} for number in range(1_000)])
    assert sent.json()["inserted"] == 1_000
    result = offers(isolated_api, "c000")
    assert result["dropped_count"] == len(dropped(result)) == 1_000 + 3 * 4 + 2
    both = isolated_api.post("/v1/offers", {"customer_ids": ["c000", "c001"]}).json()["results"]
    assert [len(each["dropped"]) for each in both] == [1_000, 1_000]
    assert both[0]["dropped_count"] == result["dropped_count"]


@pytest.mark.parametrize(("customers", "named"), [(1, None), (2, 1_000), (20, 1_000), (40, 500), (1_000, 20)])
def test_of_many_each_is_told_of_fewer(customers: int, named: int | None) -> None:
    from serving.api import predictions

    assert predictions.ineligible_limit(customers) == named


def test_a_letter_is_for_those_who_received_it(api: Any) -> None:
    result = offers(api, "c120")
    assert made(result) == ["milk-day"]
    assert "received its campaign" in dropped(result)["summer-bread"]


def test_wishes_leave_out_and_make_no_new_order(api: Any) -> None:
    whole = made(offers(api, "c000"))
    by_post = offers(api, "c000", channel="post")
    assert made(by_post) == [name for name in whole if name != "milk-day"]
    assert dropped(by_post)["milk-day"] == "it is not made on this channel"
    without = offers(api, "c000", exclude_offer_ids=[whole[0], "nothing"], n=2)
    assert made(without) == whole[1:3]
    assert dropped(without)[whole[0]] == "it was left out of the question"
    by_mail = offers(api, "c000", channel="email")
    assert made(by_mail) == []
    assert made(only(api.read("/v1/customers/c000/offers?channel=post&n=1"))) == made(by_post)[:1]


def test_a_redeemed_coupon_is_not_made_again(api: Any) -> None:
    first = made(offers(api, "c003", channel="post"))[0]
    said = {"interaction_id": "r", "customer_id": "c003", "happened_at": "2025-07-24T10:00:00Z", "channel": "store",
            "kind": "redeemed", "campaign_id": "summer", "offer_id": first}  # fmt: skip
    assert api.post("/v1/interactions", said).json()["refreshed"]
    result = offers(api, "c003")
    assert first not in made(result)
    assert dropped(result)[first] == "the customer has redeemed it already"


def test_a_coupon_redeemed_elsewhere_is_not_the_coupon_of_the_same_name(isolated_api: Any) -> None:
    """The web shop calls a coupon of its own as the grocer calls theirs."""
    milk = {"offer_id": "milk-day", "starts_at": "2025-01-06", "ends_at": "2026-01-06", "categories": ["milk"]}
    assert isolated_api.post("/v1/catalogue/offers?source=web", milk).json()["inserted"] == 1
    enrolled = {"customer_id": "zoe"}
    assert isolated_api.post("/v1/customers?source=web", enrolled).json()["inserted"] == 1
    said = {"interaction_id": "r", "customer_id": "zoe", "happened_at": "2025-07-24T10:00:00Z", "channel": "web",
            "kind": "redeemed", "offer_id": "milk-day"}  # fmt: skip
    assert isolated_api.post("/v1/interactions?source=web", said).json()["inserted"] == 1
    result = offers(isolated_api, "zoe")
    assert dropped(result)["web:milk-day"] == "the customer has redeemed it already"
    assert "files:milk-day" in made(result) or "milk-day" in made(result)


def test_a_replay_sees_no_redemption_that_came_later(isolated_api: Any) -> None:
    """A budget of one euro was spent last week; the week before, the offer could still be made."""
    from datetime import timedelta

    from customers import clock
    from serving import runtime
    from serving.offers import offer_inventory

    small = {"offer_id": "small", "starts_at": "2025-01-06", "ends_at": "2026-01-06", "categories": ["milk"],
             "value": 1, "value_kind": "amount", "budget": 1}  # fmt: skip
    assert isolated_api.post("/v1/catalogue/offers", small).json()["inserted"] == 1
    now = clock.now(isolated_api.shop)
    said = {"interaction_id": "r", "customer_id": "c003", "happened_at": (now - timedelta(days=7)).isoformat(),
            "channel": "store", "kind": "redeemed", "offer_id": "small"}  # fmt: skip
    assert isolated_api.post("/v1/interactions", said).json()["inserted"] == 1
    goods = runtime.open_runtime(isolated_api.shop).get_inventory()
    place = goods.offer_table.offer_ids.index("small")
    spent = [
        offer_inventory.load_offer_table(isolated_api.shop, goods, before=at).is_budget_spent[place]
        for at in (now - timedelta(days=8), None)
    ]
    assert spent == [False, True]


def test_an_offer_may_be_asked_for_on_every_channel_that_it_may_be_made_on(api: Any) -> None:
    from customers.ledger.interactions import CHANNELS

    for channel in CHANNELS:
        assert offers(api, "c000", channel=channel)["known"]
    assert api.post("/v1/offers", {"customer_ids": ["c000"], "channel": "pigeon"}).status_code == 422


def test_an_offer_that_is_sold_out_or_ended_goes_at_once(isolated_api: Any) -> None:
    assert "milk-day" in made(offers(isolated_api, "c000"))
    gone = [{"product_id": f"p{n:02d}", "category": "milk", "stock": 0} for n in range(1, 40, 4)]
    assert isolated_api.post("/v1/products", gone).status_code == 200
    assert dropped(offers(isolated_api, "c000"))["milk-day"] == "all that it is for is sold out"
    back = {"product_id": "p01", "stock": 5}
    assert isolated_api.post("/v1/products", back).status_code == 200
    assert "milk-day" in made(offers(isolated_api, "c000"))
    over = {"offer_id": "milk-day", "starts_at": "2025-01-06", "ends_at": "2025-02-01", "categories": ["milk"]}
    assert isolated_api.post("/v1/catalogue/offers", over, "campaign").json()["updated"] == 1
    assert dropped(offers(isolated_api, "c000"))["milk-day"] == "it has ended"


def test_strangers_and_the_quiet_get_what_is_made_to_everybody(api: Any) -> None:
    for name in ("stranger", "quiet"):
        result = offers(api, name)
        assert result["fallback"]
        assert sorted(made(result)) == ["big-basket", "milk-day"]  # nobody knows what their usual basket is
        assert {item["reason"] for item in result["items"]} == {"it is made to everybody"}


def test_the_profile_shows_the_same_offers_once(api: Any) -> None:
    said = [offers(api, "c004") for _ in range(10)]
    assert all(answer == said[0] for answer in said)
    shown = api.read("/v1/customers/c004/scores").json()["scores"]["offers"]
    assert [item["offer_id"] for item in shown["items"]] == made(said[0])
    assert [item["score"] for item in shown["items"]] == [item["score"] for item in said[0]["items"]]
    assert len(kept(api, "c004", "offers")) == 1


def test_the_profile_names_no_offer_that_may_not_be_made_any_more(
    isolated_api: Any, score_customers: Any, tmp_path: Path
) -> None:
    """Whatever came by the file since the night: first a coupon is redeemed, then no letter is allowed any more."""

    def shown() -> list[str]:
        return made(isolated_api.read("/v1/customers/c004/scores").json()["scores"]["offers"])

    def load_text(kind: str, text: str) -> None:
        (tmp_path / f"{kind}.csv").write_text(text, encoding="utf-8")
        loading_load.load_files(isolated_api.shop, kind, [tmp_path / f"{kind}.csv"])

    score_customers(isolated_api.shop)
    before = shown()
    coupon = next(name for name in before if name.startswith("summer"))
    said = "interaction_id,customer_id,happened_at,channel,kind,offer_id\n"
    load_text("interactions", f"r,c004,2025-07-24T10:00:00Z,store,redeemed,{coupon}\n".join([said, ""]))
    assert shown() == [name for name in before if name != coupon]
    load_text("consents", "customer_id,purpose,state,at\nc004,marketing_post,revoked,2025-07-20\n")
    assert shown() == [name for name in before if not name.startswith("summer")] == ["milk-day"]


def kept(api: Any, name: str, model: str) -> list[dict[str, Any]]:
    from customers.database import engine, schema
    from customers.people import lookup

    (key,) = lookup.find_keys(api.shop, [name]).values()
    query = schema.scores.join(schema.score_runs).select().where(schema.scores.c.customer_key == key)
    with engine.read_transaction(api.shop) as connection:
        return [dict(row) for row in connection.execute(query).mappings() if row["model"] == model]


@pytest.mark.parametrize("model", ["offers", "restock", "value"])
def test_the_night_says_what_the_door_says(api: Any, model: str) -> None:
    before = kept(api, "c004", model)
    assert api.post(f"/v1/{model}", {"customer_ids": ["c004"]}).status_code == 200
    assert kept(api, "c004", model) == before
    assert len(before) == 1


def test_the_list_of_those_at_risk_suggests_the_best_offer(api: Any) -> None:
    for entry in api.read("/v1/at-risk?limit=10").json()["items"]:
        assert entry["suggested_offer_id"] == made(offers(api, entry["customer_id"]))[0]


# Value ----------------------------------------------------------------------------------------------------


def test_value_is_money_over_the_horizon(api: Any) -> None:
    result = only(api.read("/v1/customers/c000/value"))
    assert (result["currency"], result["horizon_days"]) == ("USD", 28)
    assert float(result["expected"]) > 0
    assert result["expected"] == f"{float(result['expected']):.2f}"
    shown = api.read("/v1/customers/c000/scores").json()["scores"]["value"]
    assert (shown["expected"], shown["currency"]) == (result["expected"], "USD")


def test_what_is_at_risk_is_what_may_be_lost(api: Any) -> None:
    for entry in api.read("/v1/at-risk?limit=10").json()["items"]:
        worth = float(only(api.read(f"/v1/customers/{entry['customer_id']}/value"))["expected"])
        assert entry["currency"] == "USD"
        assert float(entry["value_at_risk"]) == pytest.approx(worth * entry["churn_probability"], abs=0.005)


def test_the_list_can_be_cut_by_what_is_at_risk(api: Any) -> None:
    whole = api.read("/v1/at-risk?limit=1000").json()["items"]
    least = sorted(float(entry["value_at_risk"]) for entry in whole)[len(whole) // 2]
    cut = api.read(f"/v1/at-risk?limit=1000&min_value={least}").json()["items"]
    assert cut == [entry for entry in whole if float(entry["value_at_risk"]) >= least]
    response = api.read("/v1/at-risk?segment=canary")
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] == "segment"
    assert "canary" not in response.text


# Restock --------------------------------------------------------------------------------------------------


def test_what_runs_out_comes_likeliest_first(api: Any) -> None:
    for within_days in (7, 14, 60):
        items = only(api.post("/v1/restock", {"customer_ids": ["c000"], "within_days": within_days}))["items"]
        chances = [item["p"] for item in items]
        assert chances == sorted(chances, reverse=True)
        assert {item["category"] for item in items} <= CATEGORIES
        assert all(0 <= chance <= 1 for chance in chances)


def test_a_longer_wait_is_likelier(api: Any) -> None:
    answers = [only(api.read(f"/v1/customers/c000/restock?within_days={days}")) for days in (3, 7, 14, 28, 90)]
    said = [{item["category"]: item["p"] for item in answer["items"]} for answer in answers]
    for sooner, later in pairwise(said):
        assert all(sooner[category] <= later[category] for category in sooner)


def test_an_even_chance_is_said_with_its_day(api: Any) -> None:
    for item in only(api.read("/v1/customers/c000/restock?within_days=14"))["items"]:
        if item["p"] > 0.5:
            assert datetime.fromisoformat(item["expected_at"])


@pytest.mark.parametrize("days", [0, 91, "canary"])
def test_nothing_is_foretold_beyond_a_season(api: Any, days: Any) -> None:
    response = api.post("/v1/restock", {"customer_ids": ["c000"], "within_days": days})
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/within_days"
    assert "canary" not in response.text


# Sensitive ------------------------------------------------------------------------------------------------


def test_nothing_sensitive_is_named_without_a_consent_of_its_own(isolated_api: Any) -> None:
    """Paper becomes sensitive: no list, offer or need speaks of it, until the customer allows it."""
    paper = [f"p{n:02d}" for n in range(3, 40, 4)]
    marked = [{"product_id": name, "category": "paper", "sensitive": True} for name in paper]
    assert isolated_api.post("/v1/products", marked).status_code == 200
    assert not named(isolated_api, "c000", paper)
    assert not named(isolated_api, "stranger", paper)
    consent = {"customer_id": "c000", "purpose": "profiling_sensitive", "state": "granted", "at": "2025-07-01"}
    assert isolated_api.post("/v1/consents", consent).json()["refreshed"]
    assert named(isolated_api, "c000", paper)


def named(api: Any, name: str, products: list[str]) -> bool:
    """Whether any answer about a customer names one of these products, their category or an offer on them."""
    paths = ["recommendations?n=50", "offers?n=50", "restock", *(["scores"] if name != "stranger" else [])]
    said = []
    for path in paths:
        answer = api.read(f"/v1/customers/{name}/{path}").json()
        for result in answer.get("results", ()):
            result.pop("dropped", None)
        said.append(json.dumps(answer.get("results", answer)))
    return any(f'"{word}"' in text for text in said for word in [*products, "paper", "summer-paper"])
