"""The question turned round: who is likeliest to buy a product, of a category, or to redeem an offer."""

from typing import Any

import numpy as np
import pytest

from serving.audiences import audience

EVERYBODY = 150


def ask(api: Any, **question: Any) -> dict[str, Any]:
    response = api.post("/v1/audience", question)
    assert response.status_code == 200, response.text
    return response.json()


def names(answer: dict[str, Any]) -> list[str]:
    return [result["customer_id"] for result in answer["results"]]


def test_the_likeliest_come_first_and_nobody_twice(api: Any) -> None:
    answer = ask(api, product_ids=["p00"], n=20)
    scores = [result["score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len(set(names(answer))) == 20
    assert [result["rank"] for result in answer["results"]] == list(range(1, 21))
    assert answer["eligible"] == EVERYBODY
    assert answer["expected_buyers"] == pytest.approx(sum(scores), abs=1e-3)


def test_who_buys_it_most_is_likeliest_and_is_told_apart_by_their_own_figures(api: Any) -> None:
    first = ask(api, product_ids=["p00"], n=1)["results"][0]
    assert first["reason"].startswith("bought ")
    again = api.read(f"/v1/customers/{first['customer_id']}/recommendations?list=again&n=50").json()
    (mine,) = [item for item in again["results"][0]["items"] if item["product_id"] == "p00"]
    assert mine["reason"] == first["reason"]
    assert mine["score"] == pytest.approx(first["score"])


def test_an_audience_is_better_than_chance_and_everybody_is_not(api: Any) -> None:
    assert ask(api, product_ids=["p00"], n=15)["expected_lift"] > 3
    assert ask(api, product_ids=["p00"], n=EVERYBODY)["expected_lift"] == 1


def test_where_fewer_are_eligible_than_asked_for_it_is_said(api: Any) -> None:
    assert ask(api, product_ids=["p00"], n=EVERYBODY)["reason"] is None
    assert ask(api, product_ids=["p00"], n=EVERYBODY + 50)["reason"] == "150 of 200; the shop has figures of no others"
    letter = ask(api, offer_id="summer-bread", n=EVERYBODY)
    assert letter["reason"] == "100 of 150; no others may be asked about; see left_out"


def test_what_is_sensitive_since_the_night_says_nothing_of_who_has_not_allowed_it(isolated_api: Any) -> None:
    """The night knew of all breads; of the shelves that the model reads they are gone, and nothing else is."""
    from customers.catalogue import products
    from serving import runtime
    from serving.audiences import population

    here = runtime.open_runtime(isolated_api.shop)
    gathered = population.load_population(here, None)
    (before,) = population.iter_histories(here, gathered)
    breads = [f"p{number:02d}" for number in range(0, 40, 4)]
    assert (
        isolated_api.post("/v1/products", [{"product_id": name, "sensitive": True} for name in breads]).status_code
        == 200
    )
    consent = {"customer_id": "c000", "purpose": "profiling_sensitive", "state": "granted", "at": "2025-07-01"}
    assert isolated_api.post("/v1/consents", consent).status_code == 200
    (after,) = population.iter_histories(here, gathered)
    hidden = set(products.find_keys(isolated_api.shop, breads).values())
    assert set(before["product_keys"].iloc[0]) & hidden == set(after["product_keys"].iloc[0]) & hidden
    for was, now in zip(before.iloc[1:].to_dict("records"), after.iloc[1:].to_dict("records"), strict=True):
        stays = [place for place, product in enumerate(was["product_keys"]) if product not in hidden]
        for name in ("product_keys", "times", "last_days", "weights_28d"):
            assert now[name].tolist() == was[name][stays].tolist()


def test_expected_lift_is_the_mean_of_the_first_over_the_mean_of_all() -> None:
    chances = np.array([0.1, 0.6, 0.2, 0.3])
    assert audience.expected_lift(chances, 2) == pytest.approx(((0.6 + 0.3) / 2) / (1.2 / 4))
    assert audience.expected_lift(np.zeros(3), 2) is None
    assert audience.expected_lift(np.empty(0), 2) is None


def test_a_category_is_any_of_its_products(api: Any) -> None:
    bread = {result["customer_id"]: result["score"] for result in ask(api, categories=["BREAD"], n=150)["results"]}
    one = {result["customer_id"]: result["score"] for result in ask(api, product_ids=["p00"], n=150)["results"]}
    assert all(bread[name] >= one[name] - 1e-9 for name in one)
    said = ask(api, categories=["bread"], n=1)["results"][0]["reason"]
    assert said.split(":")[0] in {f"p{number:02d}" for number in range(0, 40, 4)}


def test_only_who_may_be_contacted_on_the_channel(api: Any) -> None:
    assert ask(api, product_ids=["p00"], channel="post")["eligible"] == EVERYBODY
    nobody = ask(api, product_ids=["p00"], channel="email")
    assert nobody["results"] == []
    assert nobody["left_out"] == [{"reason": "they have not allowed this channel", "customers": EVERYBODY}]
    assert nobody["reason"] == "nobody may be asked about; see left_out"


def test_of_who_does_not_allow_profiling_nothing_is_foretold(private: Any) -> None:
    answer = ask(private, product_ids=["p00"])
    assert answer["results"] == []
    assert answer["left_out"] == [{"reason": "they have not allowed profiling", "customers": EVERYBODY}]


def test_what_is_sensitive_is_asked_only_of_who_allows_it(isolated_api: Any) -> None:
    marked = {"product_id": "p00", "category": "bread", "sensitive": True}
    assert isolated_api.post("/v1/products", marked).status_code == 200
    consents = [
        {"customer_id": f"c{number:03d}", "purpose": "profiling_sensitive", "state": "granted", "at": "2025-07-01"}
        for number in range(10)
    ]
    assert isolated_api.post("/v1/consents", consents).status_code == 200
    answer = ask(isolated_api, product_ids=["p00"])
    assert sorted(names(answer)) == [f"c{number:03d}" for number in range(10)]
    assert answer["left_out"] == [
        {"reason": "it is sensitive, and they have not allowed that such things are looked at", "customers": 140}
    ]
    beside = ask(isolated_api, categories=["bread"], n=150)
    assert beside["eligible"] == EVERYBODY  # the other breads are nobody's secret
    others = {result["customer_id"]: result["reason"] for result in beside["results"]}
    assert not any(reason.startswith("p00") for name, reason in others.items() if name > "c009")


def test_who_has_what_is_bought_but_once_is_left_out(isolated_api: Any) -> None:
    owners = {result["customer_id"] for result in ask(isolated_api, product_ids=["p00"], n=150)["results"]
              if result["reason"].startswith("bought ")}  # fmt: skip
    once = {"product_id": "p00", "category": "bread", "repurchase": "never"}
    assert isolated_api.post("/v1/products", once).status_code == 200
    answer = ask(isolated_api, product_ids=["p00"], n=150)
    assert not owners & set(names(answer))
    assert answer["left_out"] == [
        {"reason": "they have bought it and are not to be offered it again yet", "customers": len(owners)}
    ]


def test_an_offer_is_ranked_among_those_to_whom_it_may_be_made(api: Any) -> None:
    answer = ask(api, offer_id="summer-bread", n=150)
    assert answer["eligible"] == 100  # the last letter went to so many
    assert answer["left_out"] == [{"reason": "it is only for those who received its campaign", "customers": 50}]
    first = answer["results"][0]
    told = api.read(f"/v1/customers/{first['customer_id']}/offers?n=50").json()["results"][0]["items"]
    (mine,) = [item for item in told if item["offer_id"] == "summer-bread"]
    assert (mine["score"], mine["reason"]) == (pytest.approx(first["score"]), first["reason"])
    assert answer["window_days"] is None


def test_an_offer_that_nobody_may_have_says_why(api: Any) -> None:
    over = ask(api, offer_id="winter-bread")
    assert over["results"] == []
    assert over["left_out"] == [{"reason": "it has ended", "customers": EVERYBODY}]
    unknown = ask(api, offer_id="no-such-offer")
    assert (unknown["results"], unknown["reason"]) == ([], "the shop does not know this offer")


def test_what_the_shop_does_not_sell_has_no_audience(api: Any) -> None:
    answer = ask(api, product_ids=["p00", "no-such-thing"], n=1)
    assert answer["notes"] == ["product_ids: 1 of 2 are no products of this shop"]
    nothing = ask(api, product_ids=["no-such-thing"])
    assert (nothing["results"], nothing["reason"]) == ([], "the shop knows none of what was asked for")
    assert ask(api, categories=["?"])["reason"] == "the shop knows none of what was asked for"


@pytest.mark.parametrize(
    "question",
    [{}, {"product_ids": []}, {"product_ids": ["p00"], "categories": ["bread"]}, {"product_ids": ["p00"], "n": 0},
     {"product_ids": ["p00"], "n": 10_000}, {"offer_id": "milk-day", "categories": ["bread"]},
     {"product_ids": ["p00"], "channel": "pigeon"}],
)  # fmt: skip
def test_questions_that_cannot_be_answered_are_refused(api: Any, question: dict[str, Any]) -> None:
    assert api.post("/v1/audience", question).status_code == 422


def test_a_till_does_not_choose_audiences(api: Any) -> None:
    assert api.post("/v1/audience", {"product_ids": ["p00"]}, role="till").status_code == 403
