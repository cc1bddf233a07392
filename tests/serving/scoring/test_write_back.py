"""Scores are stored before they are returned: the profile shows the same number, and only once."""

import json
import time
from typing import Any

import pytest

QUESTIONS = {
    "recommender": "/v1/recommendations",
    "offers": "/v1/offers",
    "churn": "/v1/churn",
    "timing": "/v1/next-purchase",
    "restock": "/v1/restock",
    "value": "/v1/value",
}


def rows(api: Any, customer_id: str, model: str | None = None) -> list[dict[str, Any]]:
    """Every score kept about a customer, by one model or all."""
    from customers.database import engine, schema
    from customers.people import lookup

    (key,) = lookup.find_keys(api.shop, [customer_id]).values()
    with engine.read_transaction(api.shop) as connection:
        joined = schema.scores.join(schema.score_runs, schema.scores.c.run_id == schema.score_runs.c.run_id)
        query = joined.select().where(schema.scores.c.customer_key == key)
        found = connection.execute(query).mappings().all()
    return [dict(row) for row in found if model in (None, row["model"])]


def on_profile(api: Any, customer_id: str) -> dict[str, Any]:
    """The scores that the profile shows."""
    return api.read(f"/v1/customers/{customer_id}/scores").json()["scores"]


def result(answer: dict[str, Any]) -> dict[str, Any]:
    """The first customer's part of an answer."""
    return answer["results"][0]


def test_the_profile_shows_the_same_churn(isolated_api: Any) -> None:
    answer = isolated_api.post("/v1/churn", {"customer_ids": ["c000"]}).json()
    shown = on_profile(isolated_api, "c000")["churn"]
    scored = result(answer)
    assert shown["probability"] == scored["probability"]
    assert shown["version"] == answer["models"][0]["version"]
    assert shown["as_of"] == answer["as_of"] == scored["features_as_of"]
    assert {name: shown[name] for name in ("horizon_days", "band", "reasons")} == {
        name: scored[name] for name in ("horizon_days", "band", "reasons")
    }
    assert isolated_api.read("/v1/customers/c000").json()["scores"]["churn"] == shown


def test_the_profile_shows_the_same_curve(isolated_api: Any) -> None:
    answer = isolated_api.post("/v1/next-purchase", {"customer_ids": ["c000"]}).json()
    shown = on_profile(isolated_api, "c000")["timing"]
    assert shown["p"] == result(answer)["p"]
    assert shown["days"] == result(answer)["days"]
    assert (shown["version"], shown["as_of"]) == (answer["models"][0]["version"], answer["as_of"])


def test_the_profile_shows_the_same_products(isolated_api: Any) -> None:
    answer = isolated_api.post("/v1/recommendations", {"customer_ids": ["c000"]}).json()
    shown = on_profile(isolated_api, "c000")["recommender"]
    assert [{**entry, "expires_at": None} for entry in shown["items"]] == result(answer)["items"]


@pytest.mark.parametrize(("model", "path"), QUESTIONS.items())
def test_asking_ten_times_leaves_one_row(isolated_api: Any, model: str, path: str) -> None:
    for _ in range(10):
        assert isolated_api.post(path, {"customer_ids": ["c000", "c001", "c000"]}).status_code == 200
    assert len(rows(isolated_api, "c000", model)) == 1


def test_ten_at_once_leave_one_row(isolated_api: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(10) as many:
        submitted = [many.submit(isolated_api.post, "/v1/churn", {"customer_ids": ["c000", "c001"]}) for _ in range(10)]
        answers = [each.result().json()["results"] for each in submitted]
    assert all(answer == answers[0] for answer in answers)
    assert len(rows(isolated_api, "c000", "churn")) == 1


def test_a_list_with_wishes_does_not_become_the_customers_list(isolated_api: Any) -> None:
    whole = result(isolated_api.post("/v1/recommendations", {"customer_ids": ["c000"]}).json())["items"]
    first = whole[0]["product_id"]
    wishes = {"customer_ids": ["c000"], "n": 2, "categories": ["milk"], "exclude_product_ids": [first]}
    isolated_api.post("/v1/recommendations", wishes)
    assert [entry["product_id"] for entry in on_profile(isolated_api, "c000")["recommender"]["items"]] == [
        entry["product_id"] for entry in whole
    ]


@pytest.mark.parametrize("path", QUESTIONS.values())
def test_what_holds_for_all_is_not_written_down(isolated_api: Any, path: str) -> None:
    isolated_api.post(path, {"customer_ids": ["quiet", "stranger"]})
    assert rows(isolated_api, "quiet") == []


def test_the_night_writes_what_the_door_says(isolated_api: Any, score_customers: Any) -> None:
    """Everybody, in the same shapes; asking afterwards says the same and adds nothing."""
    customers, written = score_customers(isolated_api.shop)
    assert customers == 150  # one loaded customer never bought
    assert written == 6 * customers
    names = tuple(QUESTIONS)
    before = {name: rows(isolated_api, "c000", name) for name in names}
    assert {name: len(kept) for name, kept in before.items()} == dict.fromkeys(names, 1)
    for name, path in QUESTIONS.items():
        isolated_api.post(path, {"customer_ids": ["c000"]})
        assert rows(isolated_api, "c000", name) == before[name]
    assert (
        on_profile(isolated_api, "c000")["churn"]["probability"]
        == result(isolated_api.post("/v1/churn", {"customer_ids": ["c000"]}).json())["probability"]
    )
    kept = {name: json.loads(before[name][0]["detail"]) for name in names}
    assert kept["churn"].keys() == {"horizon_days", "band", "reasons", "weights", "rfm", "fallback"}
    assert len(kept["churn"]["rfm"]) == 3
    assert kept["timing"].keys() == {"p", "days", "cdf", "fallback"}
    assert kept["timing"]["cdf"] == sorted(kept["timing"]["cdf"])
    assert kept["recommender"].keys() == {"any", "again", "new", "fallback"}
    assert kept["offers"].keys() == kept["restock"].keys() == {"items", "fallback"}
    assert kept["value"].keys() == {"horizon_days", "fallback"}


def test_exports_read_what_the_night_wrote(isolated_api: Any, score_customers: Any) -> None:
    from customers.reports import exports

    score_customers(isolated_api.shop)
    scored = exports.build_table(isolated_api.shop, "scores").set_index("customer_id").loc["c000"]
    answer = result(isolated_api.post("/v1/churn", {"customer_ids": ["c000"]}).json())
    assert (scored["churn_probability"], scored["churn_band"]) == (answer["probability"], answer["band"])
    back = result(isolated_api.post("/v1/next-purchase", {"customer_ids": ["c000"]}).json())
    assert scored["p_purchase_7d"] == back["p"]["7"]
    listed = exports.build_table(isolated_api.shop, "recommendations")
    mine = listed[(listed["customer_id"] == "c000") & (listed["list"] == "any")].head(10)
    items = result(isolated_api.post("/v1/recommendations", {"customer_ids": ["c000"]}).json())["items"]
    assert mine["product_id"].tolist() == [entry["product_id"] for entry in items]
    again = [entry["source"] == "again" for entry in items]
    assert mine["reason"][again].tolist() == [entry["reason"] for entry in items if entry["source"] == "again"]
    assert mine["score"].tolist() == [entry["score"] for entry in items]


def test_a_promotion_is_noticed_without_a_restart(isolated_api: Any, make_champion: Any) -> None:
    from models.churn.baselines import BgNbdChurn
    from serving import runtime

    first = isolated_api.post("/v1/churn", {"customer_ids": ["c000"]}).json()
    model = runtime.open_runtime(isolated_api.shop).champion("churn").model
    make_champion(isolated_api.shop.home, "churn", "2", BgNbdChurn(model.bgnbd, model.horizon_days, model.base))
    second = after_a_look(isolated_api)
    assert result(second)["probability"] != result(first)["probability"]
    assert {row["version"] for row in rows(isolated_api, "c000", "churn")} == {"1", "2"}
    assert on_profile(isolated_api, "c000")["churn"]["version"] == "2"


def test_after_a_way_back_the_profile_shows_who_answered_last(
    isolated_api: Any, make_champion: Any, score_customers: Any
) -> None:
    """A night by version 1, then 2 by hand, 1 and 2 again: the profile shows the last answer, and two rows stay."""
    from models.churn.baselines import BgNbdChurn
    from models.registry import bundle
    from serving import runtime

    score_customers(isolated_api.shop)
    home = isolated_api.shop.home
    model = runtime.open_runtime(isolated_api.shop).champion("churn").model
    make_champion(home, "churn", "2", BgNbdChurn(model.bgnbd, model.horizon_days, model.base))
    for version in ("2", "1", "2"):
        bundle.publish(home / "work" / f"churn-{version}", home / "champions", "churn", version)
        answer = after_a_look(isolated_api)
        assert answer["models"][0]["version"] == version
        shown = on_profile(isolated_api, "c000")["churn"]
        assert (shown["version"], shown["probability"]) == (version, result(answer)["probability"])
    assert len(rows(isolated_api, "c000", "churn")) == 2


@pytest.mark.parametrize("path", [path for name, path in QUESTIONS.items() if name != "offers"])
def test_who_does_not_allow_profiling_gets_what_holds_for_all(api_without_profiling: Any, path: str) -> None:
    mine, anybodys = api_without_profiling.post(path, {"customer_ids": ["c000", "stranger"]}).json()["results"]
    assert mine == {**anybodys, "customer_id": "c000", "known": True}
    assert mine["fallback"]
    assert rows(api_without_profiling, "c000") == []


def test_who_does_not_allow_profiling_gets_the_offers_of_their_letters_and_no_guess(api_without_profiling: Any) -> None:
    """That a letter reached them is no guess; what they would redeem of it is, and is not made."""
    mine, anybodys = api_without_profiling.post("/v1/offers", {"customer_ids": ["c000", "stranger"]}).json()["results"]
    assert mine["fallback"]
    assert len({item["score"] for item in mine["items"] + anybodys["items"]}) == 1
    assert {item["reason"] for item in mine["items"]} == {"they received its campaign", "it is made to everybody"}
    assert rows(api_without_profiling, "c000") == []


def test_a_night_keeps_nothing_of_who_does_not_allow_profiling(
    api_without_profiling: Any, score_customers: Any
) -> None:
    assert score_customers(api_without_profiling.shop) == (0, 0)
    assert rows(api_without_profiling, "c000") == []
    assert on_profile(api_without_profiling, "c000") == {}
    assert api_without_profiling.read("/v1/at-risk").json()["items"] == []


def test_without_churn_the_curve_speaks_for_itself(without_churn: Any) -> None:
    answer = without_churn.post("/v1/next-purchase", {"customer_ids": ["c000", "stranger"]}).json()
    assert [model["name"] for model in answer["models"]] == ["timing"]
    assert [each["fallback"] for each in answer["results"]] == [False, True]
    assert on_profile(without_churn, "c000")["timing"]["p"] == result(answer)["p"]
    assert without_churn.post("/v1/churn", {"customer_ids": ["c000"]}).status_code == 503


def test_where_a_plain_rule_stands_in_everybody_is_told_so(
    isolated_api: Any, make_champion: Any, score_customers: Any
) -> None:
    """Too little to learn from: the rule answers for each customer, is written down, and is flagged at both."""
    from serving import runtime

    make_champion(
        isolated_api.shop.home,
        "churn",
        "2",
        runtime.open_runtime(isolated_api.shop).champion("churn").model,
        fallback=True,
    )
    answer = after_a_look(isolated_api)
    assert result(answer)["fallback"]
    assert on_profile(isolated_api, "c000")["churn"]["fallback"]
    score_customers(isolated_api.shop)
    (row,) = [row for row in rows(isolated_api, "c000", "churn") if row["version"] == "2"]
    assert json.loads(row["detail"])["fallback"]
    assert row["value"] == result(answer)["probability"]


def test_a_broken_bundle_leaves_the_champion_where_it_was(isolated_api: Any, make_champion: Any) -> None:
    from serving import runtime

    first = isolated_api.post("/v1/churn", {"customer_ids": ["c000"]}).json()
    pointer = isolated_api.shop.home / "champions" / "churn.json"
    before = pointer.read_bytes()
    make_champion(isolated_api.shop.home, "churn", "2", runtime.open_runtime(isolated_api.shop).champion("churn").model)
    (isolated_api.shop.home / "champions" / "churn" / "2" / "model.txt").write_text("tree=0")
    assert pointer.read_bytes() != before
    again = after_a_look(isolated_api)
    assert again["models"] == first["models"]
    assert again["results"] == first["results"]
    ready = isolated_api.client.get("/readyz")
    assert ready.status_code == 200
    assert "model.txt has changed since it was written" in ready.json()["reasons"][0]


def test_before_the_first_night_the_reasons_are_said(untrained: Any) -> None:
    """A shop with sales and no champion: alive, not ready, and every question says what to do next."""
    assert untrained.client.get("/livez").status_code == 200
    ready = untrained.client.get("/readyz")
    assert ready.status_code == 503
    assert ready.headers["content-type"] == "application/problem+json"
    assert ready.json()["reasons"] == [f"{name} has no champion yet; run: regulars run" for name in QUESTIONS]
    for path in QUESTIONS.values():
        response = untrained.post(path, {"customer_ids": ["c000"]})
        assert response.status_code == 503
        assert "regulars run" in response.json()["detail"]


def after_a_look(api: Any) -> dict[str, Any]:
    """The answer about c000 once the server has looked for a new champion, as it does every second."""
    time.sleep(1.1)
    return api.post("/v1/churn", {"customer_ids": ["c000"]}).json()


def test_what_just_happened_changes_the_answer_and_history_stays(isolated_api: Any) -> None:
    """c000 buys again an hour after the night, and their figures are pushed: churn falls, both rows stay."""
    import pandas as pd

    from customers.people import lookup
    from serving import runtime

    features = runtime.open_runtime(isolated_api.shop).features
    before = isolated_api.post("/v1/churn", {"customer_ids": ["c000"]}).json()
    (key,) = lookup.find_keys(isolated_api.shop, ["c000"]).values()
    rhythm = pd.read_parquet(features.folder / "rhythm" / "part.parquet")
    mine = rhythm[rhythm["customer_key"] == key].nlargest(1, "event_timestamp").drop(columns="created")
    later = mine["event_timestamp"] + pd.Timedelta(hours=1)
    bought = {"recency_days": 0.0, "span_days": mine["tenure_days"], "purchase_days": mine["purchase_days"] + 1}
    features.push("rhythm", mine.assign(event_timestamp=later, **bought))
    after = isolated_api.post("/v1/churn", {"customer_ids": ["c000"]}).json()
    assert result(before)["probability"] - result(after)["probability"] > 0.1
    assert after["as_of"] > before["as_of"]
    assert on_profile(isolated_api, "c000")["churn"]["probability"] == result(after)["probability"]
    assert sorted(row["value"] for row in rows(isolated_api, "c000", "churn")) == sorted(
        result(answer)["probability"] for answer in (before, after)
    )
