"""A looked-up answer is what the endpoint itself gives, whatever has happened since the night."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.lookup import answers, question_parser

#: Differ between any two answers.
OWN_FIELDS = ("request_id", "took_ms", "attribution_token")
QUESTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "churn": ({},),
    "next-purchase": ({},),
    "value": ({},),
    "restock": ({}, {"within_days": 40}),
    "recommendations": ({}, {"list": "again", "n": 50}, {"list": "new", "n": 3}),
    "offers": ({}, {"n": 50, "channel": "post"}, {"n": 2, "channel": "store"}),
}
#: Customers without a night: one has never bought, one is unknown, and the last is written with its source.
ODD_IDS = ("quiet", "nobody", "files:c001")
DAY = "2025-07-25T00:00:00-04:00"


@pytest.fixture
def changing_api(home_with_scores: Path, tmp_path: Path, api_for: Any) -> Iterator[Any]:
    """An API whose customers are scored, and whose home no other test changes."""
    from serving import runtime

    shutil.copytree(home_with_scores, tmp_path / "home")
    for api in api_for(tmp_path / "home"):
        runtime.open_runtime(api.shop).features.apply()
        yield api


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The question of every response that was looked up, at least in part."""
    names: list[str] = []
    build = answers._build_document

    def count(state: Any, catalogue: Any, question: Any, *rest: Any) -> Any:
        names.append(question.name)
        return build(state, catalogue, question, *rest)

    monkeypatch.setattr(answers, "_build_document", count)
    return names


def customer_ids(api: Any) -> list[str]:
    from customers.people import lookup
    from customers.scores import score_store

    keys = score_store.load_run_scores(api.shop, "churn")["customer_key"].tolist()
    return sorted(lookup.find_ids(api.shop, keys).values())


def without_own_fields(response: Any) -> str:
    """The text of a response without what differs between any two, in its own order."""
    assert response.status_code == 200, response.text
    return json.dumps({name: value for name, value in response.json().items() if name not in OWN_FIELDS})


def from_endpoint(request: Callable[[], Any]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(question_parser, "question_name", lambda route: None)
        return request()


def assert_same(api: Any, *, reads: int = 2) -> None:
    """Compare the answers about all customers at once, and those about a few alone, with those of the endpoints."""
    names = [*customer_ids(api), *ODD_IDS, "c001"]
    for question, variants in QUESTIONS.items():
        for parameters in variants:
            body = {"customer_ids": names, **parameters}
            looked_up = api.post(f"/v1/{question}", body)
            computed = from_endpoint(lambda question=question, body=body: api.post(f"/v1/{question}", body))
            assert without_own_fields(looked_up) == without_own_fields(computed), question
        query = "&".join(f"{name}={value}" for name, value in variants[-1].items())
        for name in [*names[:: len(names) // reads], *ODD_IDS]:
            path = f"/v1/customers/{name}/{question}?{query}".rstrip("?")
            computed = from_endpoint(lambda path=path: api.read(path))
            assert without_own_fields(api.read(path)) == without_own_fields(computed), path


def is_looked_up(api: Any, lookups: list[str], question: str, name: str = "c001") -> bool:
    lookups.clear()
    api.read(f"/v1/customers/{name}/{question}")
    return lookups == [question]


def test_every_answer_about_every_customer_is_that_of_its_endpoint(changing_api: Any, lookups: list[str]) -> None:
    assert_same(changing_api)
    assert set(lookups) == set(QUESTIONS)


def test_after_a_sale_the_customer_is_scored_afresh_and_the_others_are_looked_up(
    changing_api: Any, lookups: list[str]
) -> None:
    line = {"order_id": "o1", "line_id": "1", "customer_id": "c001", "product_id": "p01", "quantity": 1, "amount": "3"}
    sold = changing_api.post("/v1/transactions", [line | {"sold_at": "2025-07-24T12:00:00-04:00"}])
    assert sold.status_code == 200, sold.text
    assert not is_looked_up(changing_api, lookups, "churn", "c001")
    assert is_looked_up(changing_api, lookups, "churn", "c002")
    assert_same(changing_api)


def test_only_the_sale_of_a_product_that_was_unsold_makes_the_tables_again(
    changing_api: Any, lookups: list[str]
) -> None:
    from serving import runtime

    def sell(number: int, product_id: str) -> dict[str, Any]:
        line = {"order_id": f"late-{number}", "line_id": "1", "customer_id": "c001", "product_id": product_id}
        line |= {"quantity": 1, "amount": "3", "sold_at": "2025-07-24T12:00:00-04:00"}
        assert changing_api.post("/v1/transactions", [line]).status_code == 200
        assert is_looked_up(changing_api, lookups, "churn", "c002")
        return dict(state.last_catalogue.tables)

    offer = {"offer_id": "novelty", "kind": "discount", "starts_at": "2025-01-06T00:00:00-05:00",
             "ends_at": "2026-07-01T00:00:00-04:00", "product_ids": ["unheard-of", "p01"], "channels": ["store"],
             "value": 10, "value_kind": "percent"}  # fmt: skip
    assert changing_api.post("/v1/catalogue/offers", [offer]).status_code == 200
    state = answers.get_outage_answers(runtime.get_runtime()).state
    first, second, third = sell(1, "p01"), sell(2, "p02"), sell(3, "unheard-of")
    assert all(second[name] is first[name] for name in first)
    assert all(third[name] is not second[name] for name in third)
    assert_same(changing_api)


def test_a_consent_holds_from_the_next_request_on(changing_api: Any, lookups: list[str]) -> None:
    assert is_looked_up(changing_api, lookups, "churn", "c001")
    for name, purpose, state in (("c001", "profiling", "revoked"), ("c002", "marketing_post", "revoked")):
        statement = {"customer_id": name, "purpose": purpose, "state": state, "at": DAY, "source": "shop"}
        assert changing_api.post("/v1/consents", [statement]).status_code == 200
    assert not is_looked_up(changing_api, lookups, "churn", "c001")
    assert changing_api.read("/v1/customers/c001/churn").json()["results"][0]["fallback"]
    offered = changing_api.read("/v1/customers/c002/offers?channel=post").json()["results"][0]
    assert offered["items"] == []
    assert_same(changing_api)


def test_an_erased_customer_is_unknown_at_once_and_is_no_longer_in_the_arrays(
    changing_api: Any, lookups: list[str]
) -> None:
    from customers.people import lookup
    from serving.arrays import night_arrays

    home, key = changing_api.shop.home, lookup.find_keys(changing_api.shop, ["c001"])["c001"]
    arrays = night_arrays.load(home, "churn")
    assert arrays is not None
    row = arrays.find_rows([key])[0]
    assert arrays.columns["as_of"][row] > 0
    assert changing_api.post("/v1/customers/c001/erase", {}).status_code == 200
    assert changing_api.read("/v1/customers/c001/churn").json()["results"][0]["known"] is False
    assert arrays.columns["as_of"][row] == 0, "the worker's own mapping sees it"
    for name in answers.TABLES:
        erased = night_arrays.load(home, name)
        assert erased is not None
        assert erased.find_rows([key]) == [-1]
        assert key not in erased.keys
    assert_same(changing_api)


@pytest.mark.acceptance
def test_an_offer_that_ends_or_is_narrowed_is_not_made(changing_api: Any, lookups: list[str]) -> None:
    offer = {"offer_id": "milk-day", "kind": "discount", "starts_at": "2025-01-06T00:00:00-05:00",
             "ends_at": "2025-07-01T00:00:00-04:00", "categories": ["milk"], "channels": ["store"],
             "value": 10, "value_kind": "percent"}  # fmt: skip
    assert changing_api.post("/v1/catalogue/offers", [offer]).status_code == 200
    offered = changing_api.read("/v1/customers/c001/offers?n=50").json()["results"][0]["items"]
    assert "milk-day" not in {item["offer_id"] for item in offered}
    assert is_looked_up(changing_api, lookups, "offers"), "only its end has changed"
    assert_same(changing_api)
    narrowed = offer | {"ends_at": "2026-02-10T00:00:00-05:00", "channels": ["sms"]}
    assert changing_api.post("/v1/catalogue/offers", [narrowed]).status_code == 200
    assert not is_looked_up(changing_api, lookups, "offers")
    assert_same(changing_api)


def test_redemptions_that_are_loaded_from_a_file(changing_api: Any, lookups: list[str], tmp_path: Path) -> None:
    from customers.loading.load import load_files

    path = tmp_path / "redeemed.csv"
    path.write_text(
        "interaction_id,customer_id,kind,offer_id,happened_at\nr1,c001,redeemed,milk-day,2025-07-20T12:00:00-04:00\n",
        encoding="utf-8",
    )
    assert is_looked_up(changing_api, lookups, "offers")
    load_files(changing_api.shop, "interactions", [path])
    assert not is_looked_up(changing_api, lookups, "offers")
    assert is_looked_up(changing_api, lookups, "churn"), "features are those of the night"
    refused = changing_api.read("/v1/customers/c001/offers").json()["results"][0]["dropped"]
    assert {"offer_id": "milk-day", "reason": "the customer has redeemed it already"} in refused
    assert_same(changing_api)


def test_a_product_that_is_sold_out(changing_api: Any, lookups: list[str]) -> None:
    sold_out = [{"product_id": f"p{n:02d}", "stock": 0} for n in range(0, 40, 4)]
    assert changing_api.post("/v1/products", sold_out).status_code == 200
    refused = changing_api.read("/v1/customers/c001/offers").json()["results"][0]["dropped"]
    assert "all that it is for is sold out" in {each["reason"] for each in refused}
    assert_same(changing_api)


def test_a_product_that_becomes_sensitive(changing_api: Any, lookups: list[str]) -> None:
    assert changing_api.post("/v1/products", [{"product_id": "p01", "sensitive": True}]).status_code == 200
    assert not is_looked_up(changing_api, lookups, "recommendations")
    assert_same(changing_api)


@pytest.mark.acceptance
def test_a_promotion_and_a_rollback(changing_api: Any, lookups: list[str], make_champion: Any) -> None:
    from models.registry import bundle

    home = changing_api.shop.home
    first = bundle.open_champion(home / "champions", "churn")
    assert first is not None
    assert is_looked_up(changing_api, lookups, "churn")
    make_champion(home, "churn", "2", first.model)
    time.sleep(1.1)
    for question in ("churn", "next-purchase"):
        assert not is_looked_up(changing_api, lookups, question)
    assert is_looked_up(changing_api, lookups, "value")
    assert changing_api.read("/v1/customers/c001/churn").json()["models"][0]["version"] == "2"
    assert_same(changing_api)
    bundle.publish(home / "work" / "churn-1", home / "champions", "churn", "1")
    time.sleep(1.1)
    assert not is_looked_up(changing_api, lookups, "churn"), "the profile shows what version 2 has answered since"
    assert_same(changing_api)


def test_under_other_rules_or_settings_nothing_of_the_night_is_used(
    home_with_scores: Path, tmp_path: Path, api_for: Any, lookups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home_with_scores, tmp_path / "home")
    monkeypatch.setenv("REGULARS_RECOMMENDATIONS", "{ max_per_category = 2, in_stock_only = true }")
    for api in api_for(tmp_path / "home"):
        assert not is_looked_up(api, lookups, "recommendations")
        assert is_looked_up(api, lookups, "churn")
        assert_same(api)


def test_a_request_that_is_not_plain_is_answered_by_its_endpoint(changing_api: Any, lookups: list[str]) -> None:
    names = ["c001", "c002"]
    for question, parameters in (
        ("recommendations", {"exclude_product_ids": ["p01"]}),
        ("recommendations", {"max_per_category": 1}),
        ("offers", {"exclude_offer_ids": ["milk-day"]}),
    ):
        assert changing_api.post(f"/v1/{question}", {"customer_ids": names, **parameters}).status_code == 200
    for body in (
        {"customer_ids": names, "n": "10"},
        {"customer_ids": names, "n": 0},
        {"customer_ids": names, "colour": 1},
        {"customer_ids": []},
        {"customer_ids": ["a\nb"]},
        {"customer_ids": ["x"] * 10_001},
        [],
        {},
    ):
        assert changing_api.post("/v1/recommendations", body).status_code in (200, 422)
    assert changing_api.read("/v1/customers/c001/churn?n=3").status_code == 422
    assert lookups == []


def test_a_role_that_may_not_ask_is_refused_before_anything_is_looked_up(changing_api: Any, lookups: list[str]) -> None:
    assert changing_api.read("/v1/customers/c001/churn", role="till").status_code == 403
    assert changing_api.client.get("/v1/customers/c001/churn").status_code == 401
    assert lookups == []


def test_a_revoked_key_is_refused_from_the_next_request_on(changing_api: Any) -> None:
    from customers.database import engine
    from customers.database.schema import api_keys as table
    from customers.security import api_keys

    assert changing_api.read("/v1/customers/c001/churn", role="agent").status_code == 200
    prefix = api_keys.key_prefix(changing_api.keys["agent"])
    with engine.write_transaction(changing_api.shop) as connection:
        connection.execute(table.delete().where(table.c.prefix == prefix))
    assert changing_api.read("/v1/customers/c001/churn", role="agent").status_code == 401
    assert changing_api.read("/v1/customers/c001/churn", role="admin").status_code == 200


def test_damaged_arrays_keep_no_question_from_being_answered(changing_api: Any, lookups: list[str]) -> None:
    home = changing_api.shop.home
    (home / "lookup" / "churn.json").write_text("{", encoding="utf-8")
    shutil.rmtree(home / "lookup" / "value")
    assert not is_looked_up(changing_api, lookups, "churn")
    assert changing_api.read("/v1/customers/c001/value").status_code == 200
    assert is_looked_up(changing_api, lookups, "recommendations")


def test_a_historical_run_publishes_nothing(changing_api: Any, score_customers: Any) -> None:
    from datetime import timedelta

    from customers.ledger import watermark
    from serving import runtime

    home = changing_api.shop.home
    before = (home / "lookup" / "churn.json").read_text(encoding="utf-8")
    now = runtime.open_runtime(changing_api.shop).now()
    watermark.record_run_start(changing_api.shop, now + timedelta(days=1))
    score_customers(changing_api.shop)
    assert (home / "lookup" / "churn.json").read_text(encoding="utf-8") == before
