"""The door: who gets in, how others are turned away, and that nothing private leaves by it."""

import logging
import re
from typing import Any

import pytest

from serving.http import middleware, routes

#: Words that a caller sends and that must come back in no error, log line or label.
CANARY = "wilhelmina.canary@example.com"
QUESTIONS = ("/v1/recommendations", "/v1/offers", "/v1/churn", "/v1/next-purchase", "/v1/value", "/v1/restock")


def assert_problem(response: Any, status: int) -> dict[str, Any]:
    """A problem document of this status, without the caller's words."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "canary" not in f"{response.text}{response.headers}".lower()
    return problem


# Wrong questions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", QUESTIONS)
@pytest.mark.parametrize(
    ("question", "pointer"),
    [
        ({}, "/customer_ids"),
        ({"customer_ids": []}, "/customer_ids"),
        ({"customer_ids": ["c000"] * 1001}, "/customer_ids"),
        ({"customer_ids": CANARY}, "/customer_ids"),
        ({"customer_ids": [{"email": CANARY}]}, "/customer_ids/0"),
        ({"customer_ids": ["c000", 7]}, "/customer_ids/1"),
        ({"customer_ids": ["c000", f"{CANARY}\x00"]}, "/customer_ids/1"),
        ({"customer_ids": ["x" * 201]}, "/customer_ids/0"),
        ({"customer_ids": ["c000"], CANARY: CANARY}, ""),
        ([CANARY], ""),
        (CANARY, ""),
        (7, ""),
    ],
)
def test_a_wrong_field_is_pointed_at_and_not_repeated(api: Any, path: str, question: Any, pointer: str) -> None:
    problem = assert_problem(api.post(path, question), 422)
    assert problem["errors"][0]["pointer"] == pointer
    assert problem["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 0), ("n", 51), ("n", 1e400), ("n", CANARY), ("list", CANARY), ("at", "2017-11-01"), ("at", CANARY),
     ("categories", CANARY), ("exclude_product_ids", [CANARY + "\n"]), ("exclude_product_ids", ["p"] * 1001)],
)  # fmt: skip
def test_a_wrong_wish_for_a_list_is_pointed_at(api: Any, field: str, value: Any) -> None:
    body = f'{{"customer_ids": ["c000"], "{field}": {_json(value)}}}'
    response = api.client.post(
        "/v1/recommendations",
        content=body,
        headers=api.key("admin") | {"Content-Type": "application/json"},
    )
    assert assert_problem(response, 422)["errors"][0]["pointer"].startswith(f"/{field}")


def _json(value: Any) -> str:
    import json

    return "1e400" if value == 1e400 else json.dumps(value)


@pytest.mark.parametrize(
    "body",
    [
        f"{{{CANARY}",
        f'{{"customer_ids": ["{CANARY}"',
        "[" * 100_000,
        '{"customer_ids": ["\\ud800"]}',
        "\xff",
        "",
        "null",
    ],
)
def test_what_is_not_json_is_refused(api: Any, body: str) -> None:
    headers = api.key("admin") | {"Content-Type": "application/json"}
    response = api.client.post("/v1/churn", content=body.encode("latin-1"), headers=headers)
    assert_problem(response, 422)


@pytest.mark.parametrize("query", [f"n={CANARY}", "n=0", f"list={CANARY}", "n=99999999999999999999"])
def test_a_wrong_parameter_is_named(api: Any, query: str) -> None:
    problem = assert_problem(api.read(f"/v1/customers/c000/recommendations?{query}"), 422)
    assert problem["errors"][0]["parameter"] == query.split("=")[0]


@pytest.mark.parametrize("path", ["recommendations?boost=season", "churn?n=3", "offers?chanel=store", "?verbose=1"])
def test_a_parameter_that_nobody_reads_is_refused(api: Any, path: str) -> None:
    problem = assert_problem(api.read(f"/v1/customers/c000{'' if path[0] == '?' else '/'}{path}"), 422)
    assert "known here" in str(problem["errors"]) or "none here" in str(problem["errors"])


def test_a_control_character_is_nobodys_id(api: Any) -> None:
    assert_problem(api.read(f"/v1/customers/{CANARY}%07/churn"), 422)


# Wrong ways of asking -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml",
     "application/vnd.bentoml+pickle", "application/json; charset=latin-1"],
)  # fmt: skip
def test_only_json_comes_in(api: Any, kind: str) -> None:
    response = api.client.post("/v1/churn", content=CANARY, headers=api.key("admin") | {"Content-Type": kind})
    assert_problem(response, 415)
    assert response.headers["accept-post"] == "application/json"


def test_compressed_questions_are_refused(api: Any) -> None:
    headers = api.key("admin") | {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert_problem(api.client.post("/v1/churn", content=b"\x1f\x8b", headers=headers), 415)


@pytest.mark.parametrize(
    "kind", ["application/json", "APPLICATION/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_json_may_say_that_it_is_utf8(api: Any, kind: str) -> None:
    headers = api.key("admin") | {"Content-Type": kind}
    assert api.client.post("/v1/churn", content='{"customer_ids": ["c000"]}', headers=headers).status_code == 200


@pytest.mark.parametrize("whole", [True, False], ids=["with a length", "in pieces"])
def test_a_body_has_a_largest_size(api: Any, whole: bool) -> None:
    body = b'{"customer_ids": ["' + CANARY.encode() + b" " * middleware.MAX_BODY_BYTES + b'"]}'
    pieces = body if whole else (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    headers = api.key("admin") | {"Content-Type": "application/json"}
    assert_problem(api.client.post("/v1/churn", content=pieces, headers=headers), 413)


@pytest.mark.parametrize(
    "path",
    ["/docs", "/docs.json", "/schema.json", "/healthz", "/static_content/x", "/v1", "/v2/churn",
     f"/v1/nothing/{CANARY}", "/v1/churn/", "/v1/customers/c000/"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_there_is_nothing_else_here(api: Any, path: str, method: str) -> None:
    assert_problem(api.client.request(method, path, headers=api.key("admin")), 404)


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("GET", "/v1/churn", "POST"), ("POST", "/v1/at-risk", "GET"), ("DELETE", "/v1/customers/c000", "GET"),
    ("GET", "/v1/transactions", "POST"),
    ("PUT", "/livez", "GET"),
])  # fmt: skip
def test_a_wrong_method_is_told_the_right_one(api: Any, method: str, path: str, allowed: str) -> None:
    response = api.client.request(method, path, headers=api.key("admin"))
    assert_problem(response, 405)
    assert response.headers["allow"] == allowed


# Keys and roles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", f"Bearer {CANARY}", f"Basic {CANARY}", CANARY])
def test_without_a_key_nobody_gets_in(api: Any, header: str) -> None:
    response = api.client.post("/v1/churn", json={"customer_ids": [CANARY]}, headers={"Authorization": header})
    assert_problem(response, 401)
    assert response.headers["www-authenticate"] == "Bearer"


def test_the_key_is_asked_for_before_the_question_is_read(api: Any) -> None:
    assert_problem(api.client.post("/v1/churn", content=CANARY, headers={"Content-Type": "text/plain"}), 401)


#: What may be sent to each route that takes records; the others are asked about a customer.
SENT = {
    "/v1/transactions": {"order_id": "door", "product_id": "p01", "sold_at": "2025-07-01", "quantity": 1, "amount": 1},
    "/v1/interactions": {"interaction_id": "door", "customer_id": "c001", "happened_at": "2025-07-01",
                         "kind": "visited", "channel": "store"},
    "/v1/customers": {"customer_id": "door"},
    "/v1/consents": {"customer_id": "c001", "purpose": "third_party", "state": "denied", "at": "2025-07-01"},
    "/v1/products": {"product_id": "door"},
    "/v1/catalogue/offers": {"offer_id": "door", "starts_at": "2025-01-01", "ends_at": "2025-01-02",
                             "categories": ["milk"]},
}  # fmt: skip
#: Questions about something else than customers.
ASKED = {"/v1/similar": {"product_ids": ["p01"]}, "/v1/audience": {"product_ids": ["p01"]}}


def test_every_route_asks_for_a_role_that_may(isolated_api: Any) -> None:
    """Whatever OpenAPI says can be asked, by every role: allowed exactly where the table says so."""
    said = isolated_api.client.get("/openapi.json").json()["paths"]
    assert {(m.upper(), path) for path in said for m in said[path]} == {(r.method, r.path) for r in routes.ROUTES}
    isolated_api.post("/v1/customers", [{"customer_id": role} for role in routes.ROLES])
    _night(isolated_api)
    for route in routes.ROUTES:
        for role in (None, *routes.ROLES):
            # Whoever is erased cannot be asked about again.
            path = route.path.replace("{customer_id}", str(role) if route.path.endswith("/erase") else "c000")
            sent = isolated_api.key(role) if role else {}
            question = (SENT | ASKED).get(route.path, {"customer_ids": ["c000"]})
            body = {"json": question} if route.method == "POST" else {}
            status = isolated_api.client.request(route.method, path, headers=sent, **body).status_code
            expected = 200 if route.is_public or role in route.roles else 403 if role else 401
            assert status == expected, (route.method, path, role)


def _night(api: Any) -> None:
    """The list of those at risk is there from the first night on."""
    from serving import runtime
    from serving.scoring import batch

    here = runtime.open_runtime(api.shop)
    here.features.apply()
    champion = here.champion("churn")
    batch.score_all_customers(api.shop, here.features, {"churn": (champion.version, champion.model)}, here.now())


def test_the_till_sells_recommends_and_makes_offers(api: Any) -> None:
    may = {route.path for route in routes.ROUTES if "till" in route.roles}
    asked = {
        f"/v1/{about}{what}" for about in ("", "customers/{customer_id}/") for what in ("recommendations", "offers")
    }
    assert may == {"/v1/transactions", "/v1/similar", *asked}


def test_an_analyst_changes_nothing() -> None:
    writing = {*SENT, "/v1/customers/{customer_id}/erase", "/v1/customers/{customer_id}/export"}
    assert not {route.path for route in routes.ROUTES if "analyst" in route.roles} & writing


# What leaves ----------------------------------------------------------------------------------------------


def test_a_request_keeps_its_id_if_it_is_one(api: Any) -> None:
    mine = "0e1d2c3b-4a59-4687-9788-a9bacbdcedfe"
    assert api.read("/livez", **{"X-Request-Id": mine}).headers["x-request-id"] == mine
    other = api.read("/livez", **{"X-Request-Id": CANARY}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f-]{36}", other)


def test_answers_are_not_stored_on_the_way(api: Any) -> None:
    headers = api.read("/v1/customers/c000/churn").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "bentoml" not in str(headers).lower()


def test_metrics_know_templates_and_not_customers(api: Any) -> None:
    api.read("/v1/customers/c001/churn")
    api.read(f"/v1/nothing/{CANARY}")
    api.post("/v1/churn", {"customer_ids": ["c002", CANARY]})
    page = api.client.get("/metrics").text
    assert 'route="/v1/customers/{customer_id}/churn",status="200"' in page
    assert 'regulars_requests_total{method="GET",route="unmatched",status="404"}' in page
    assert 'regulars_fallbacks_total{question="churn"}' in page
    assert not re.search(r"c00\d|canary", page.lower())
    allowed = {route.path for route in (*routes.ROUTES, *routes.PAGES)} | {"unmatched"}
    assert set(re.findall(r'route="([^"]+)"', page)) <= allowed


def test_unknown_methods_do_not_grow_the_labels(api: Any) -> None:
    for number in range(3):
        api.client.request(f"CANARY{number}", "/v1/churn", headers=api.key("admin"))
    assert "CANARY" not in api.client.get("/metrics").text


def test_logs_know_templates_and_not_customers(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    api.read("/v1/customers/c001/churn")
    api.read(f"/v1/customers/{CANARY}/scores")
    api.post("/v1/churn", {"customer_ids": [CANARY], CANARY: 1})
    ours = [record for record in caplog.records if not record.name.startswith("httpx")]
    told = "\n".join(logging.Formatter().format(record) for record in ours)
    assert '"route": "/v1/customers/{customer_id}/scores"' in told
    assert not re.search(r"c001|canary", told.lower())
    assert api.keys["admin"] not in told


def test_the_server_says_that_it_is_alive_and_ready(api: Any) -> None:
    assert api.client.get("/livez").status_code == 200
    ready = api.client.get("/readyz").json()
    assert ready == {
        "status": "ready",
        "models": dict.fromkeys(("recommender", "offers", "churn", "timing", "restock", "value"), "1"),
        "reasons": [],
    }


def test_openapi_describes_questions_answers_and_refusals(api: Any) -> None:
    said = api.client.get("/openapi.json").json()
    assert said["info"]["title"] == "regulars"
    assert "bentoml" not in str(said).lower()
    asked = said["paths"]["/v1/recommendations"]["post"]
    assert set(asked["responses"]) == {"200", "401", "403", "413", "415", "422", "500", "503"}
    assert asked["responses"]["422"]["content"].keys() == {"application/problem+json"}
    assert said["paths"]["/livez"]["get"]["security"] == []
    sent = said["paths"]["/v1/transactions"]["post"]
    assert {"source", "idempotency-key"} <= {parameter["name"].lower() for parameter in sent["parameters"]}
    record, many = sent["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
    assert {"order_id", "product_id", "sold_at", "quantity", "amount"} == set(record["required"])
    assert many["maxItems"] == 1_000
    assert set(said["paths"]["/v1/customers/{customer_id}/erase"]["post"]["responses"]) >= {"200", "404", "422"}
    named = set(re.findall(r"#/components/schemas/(\w+)", str(said)))
    assert named == set(said["components"]["schemas"])


# When something breaks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bulk", [True, False], ids=["BentoML's routes", "ours"])
def test_a_failure_is_a_problem_and_its_text_stays_inside(
    isolated_api: Any, bulk: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The online store has lost a table: a 500, with the place in our log and the error's words nowhere."""
    import sqlite3

    with sqlite3.connect(isolated_api.shop.home / "features" / "feast" / "online.db") as store:
        store.execute('drop table "regulars_rhythm"')
    response = (
        isolated_api.post("/v1/churn", {"customer_ids": ["c000", CANARY]})
        if bulk
        else isolated_api.read("/v1/customers/c000/churn")
    )
    problem = assert_problem(response, 500)
    assert "regulars_rhythm" not in response.text
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("regulars"))
    assert re.search(f"{problem['request_id']}.*: OperationalError at online.py", ours)
    assert "canary" not in caplog.text.lower()
    assert "no such table" not in caplog.text


def test_a_database_that_does_not_answer_is_said_so() -> None:
    from customers.shop.errors import ShopUnavailable
    from serving.http import problems

    problem = problems.from_exception(ShopUnavailable("the customer database does not answer at /srv/shop.db"))
    assert problem.status == 503
    assert problem.headers["Retry-After"]
    assert "/srv" not in problem.detail


@pytest.mark.parametrize("path", ["/v1/customers/c000/churn", "/v1/customers/c000"])
def test_nobody_waits_for_ever(api: Any, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "PATIENCE_SECONDS", 0.0)
    response = api.read(path)
    assert assert_problem(response, 503)["detail"] == middleware.TIMEOUT_DETAIL
    assert response.headers["retry-after"]


def test_the_door_has_no_other_entrance(api: Any) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), api.client.websocket_connect("/v1/churn"):
        pass
