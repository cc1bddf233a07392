"""The HTTP gateway: keys and roles, refusals as problem documents, and no personal data in errors, logs or metrics."""

import logging
import re
from typing import Any

import pytest

from serving.api import predictions
from serving.http import middleware, routes

#: Text that a caller sends and that must appear in no error, log line or metric label.
CANARY = "wilhelmina.canary@example.com"
PREDICTION_PATHS = ("/v1/recommendations", "/v1/offers", "/v1/churn", "/v1/next-purchase", "/v1/value", "/v1/restock")


def assert_problem(response: Any, status: int) -> dict[str, Any]:
    """The problem document of a response: it has this status and repeats no text of the caller."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "canary" not in f"{response.text}{response.headers}".lower()
    return problem


# Invalid bodies and parameters ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", PREDICTION_PATHS)
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/customer_ids"),
        ({"customer_ids": []}, "/customer_ids"),
        ({"customer_ids": ["c000"] * 10_001}, "/customer_ids"),
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
def test_an_invalid_field_is_located_by_a_pointer_and_not_repeated(
    api: Any, path: str, body: Any, pointer: str
) -> None:
    problem = assert_problem(api.post(path, body), 422)
    assert problem["errors"][0]["pointer"] == pointer
    assert problem["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 0), ("n", 51), ("n", 1e400), ("n", CANARY), ("list", CANARY), ("at", "2017-11-01"), ("at", CANARY),
     ("categories", CANARY), ("exclude_product_ids", [CANARY + "\n"]), ("exclude_product_ids", ["p"] * 1001)],
)  # fmt: skip
def test_an_invalid_recommendation_option_is_located_by_a_pointer(api: Any, field: str, value: Any) -> None:
    body = f'{{"customer_ids": ["c000"], "{field}": {_to_json(value)}}}'
    response = api.client.post(
        "/v1/recommendations",
        content=body,
        headers=api.key("admin") | {"Content-Type": "application/json"},
    )
    assert assert_problem(response, 422)["errors"][0]["pointer"].startswith(f"/{field}")


def _to_json(value: Any) -> str:
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
def test_a_body_that_is_not_json_is_refused(api: Any, body: str) -> None:
    headers = api.key("admin") | {"Content-Type": "application/json"}
    response = api.client.post("/v1/churn", content=body.encode("latin-1"), headers=headers)
    assert_problem(response, 422)


@pytest.mark.parametrize("query", [f"n={CANARY}", "n=0", f"list={CANARY}", "n=99999999999999999999"])
def test_an_invalid_query_parameter_is_named(api: Any, query: str) -> None:
    problem = assert_problem(api.read(f"/v1/customers/c000/recommendations?{query}"), 422)
    assert problem["errors"][0]["parameter"] == query.split("=")[0]


@pytest.mark.parametrize("path", ["recommendations?boost=season", "churn?n=3", "offers?chanel=store", "?verbose=1"])
def test_an_unknown_query_parameter_is_refused(api: Any, path: str) -> None:
    problem = assert_problem(api.read(f"/v1/customers/c000{'' if path[0] == '?' else '/'}{path}"), 422)
    assert "known here" in str(problem["errors"]) or "none here" in str(problem["errors"])


def test_a_customer_id_with_a_control_character_is_refused(api: Any) -> None:
    assert_problem(api.read(f"/v1/customers/{CANARY}%07/churn"), 422)


# Content types, sizes, paths and methods ----------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml",
     "application/vnd.bentoml+pickle", "application/json; charset=latin-1"],
)  # fmt: skip
def test_only_json_is_accepted(api: Any, content_type: str) -> None:
    response = api.client.post("/v1/churn", content=CANARY, headers=api.key("admin") | {"Content-Type": content_type})
    assert_problem(response, 415)
    assert response.headers["accept-post"] == "application/json"


def test_compressed_bodies_are_refused(api: Any) -> None:
    headers = api.key("admin") | {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert_problem(api.client.post("/v1/churn", content=b"\x1f\x8b", headers=headers), 415)


@pytest.mark.parametrize(
    "content_type", ["application/json", "APPLICATION/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_json_with_a_utf8_charset_is_accepted(api: Any, content_type: str) -> None:
    headers = api.key("admin") | {"Content-Type": content_type}
    assert api.client.post("/v1/churn", content='{"customer_ids": ["c000"]}', headers=headers).status_code == 200


@pytest.mark.parametrize("has_length", [True, False], ids=["with a length", "in pieces"])
def test_a_body_above_the_size_limit_is_refused(api: Any, has_length: bool) -> None:
    body = b'{"customer_ids": ["' + CANARY.encode() + b" " * middleware.MAX_BODY_BYTES + b'"]}'
    content = body if has_length else (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    headers = api.key("admin") | {"Content-Type": "application/json"}
    assert_problem(api.client.post("/v1/churn", content=content, headers=headers), 413)


@pytest.mark.parametrize(
    "path",
    ["/docs", "/docs.json", "/schema.json", "/healthz", "/static_content/x", "/v1", "/v2/churn",
     f"/v1/nothing/{CANARY}", "/v1/churn/", "/v1/customers/c000/"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_path_is_answered_with_404(api: Any, path: str, method: str) -> None:
    assert_problem(api.client.request(method, path, headers=api.key("admin")), 404)


@pytest.mark.parametrize(("method", "path", "allowed"), [
    ("GET", "/v1/churn", "POST"), ("POST", "/v1/at-risk", "GET"), ("DELETE", "/v1/customers/c000", "GET"),
    ("GET", "/v1/transactions", "POST"),
    ("PUT", "/livez", "GET"),
])  # fmt: skip
def test_a_wrong_method_is_refused_with_the_allowed_one(api: Any, method: str, path: str, allowed: str) -> None:
    response = api.client.request(method, path, headers=api.key("admin"))
    assert_problem(response, 405)
    assert response.headers["allow"] == allowed


# Keys and roles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", f"Bearer {CANARY}", f"Basic {CANARY}", CANARY])
def test_a_request_without_a_valid_key_is_refused(api: Any, header: str) -> None:
    response = api.client.post("/v1/churn", json={"customer_ids": [CANARY]}, headers={"Authorization": header})
    assert_problem(response, 401)
    assert response.headers["www-authenticate"] == "Bearer"


def test_the_key_is_checked_before_the_body_is_read(api: Any) -> None:
    assert_problem(api.client.post("/v1/churn", content=CANARY, headers={"Content-Type": "text/plain"}), 401)


#: A valid record for each route that stores records; the other routes take customer ids.
RECORDS = {
    "/v1/transactions": {"order_id": "door", "product_id": "p01", "sold_at": "2025-07-01", "quantity": 1, "amount": 1},
    "/v1/interactions": {"interaction_id": "door", "customer_id": "c001", "happened_at": "2025-07-01",
                         "kind": "visited", "channel": "store"},
    "/v1/customers": {"customer_id": "door"},
    "/v1/consents": {"customer_id": "c001", "purpose": "third_party", "state": "denied", "at": "2025-07-01"},
    "/v1/products": {"product_id": "door"},
    "/v1/catalogue/offers": {"offer_id": "door", "starts_at": "2025-01-01", "ends_at": "2025-01-02",
                             "categories": ["milk"]},
}  # fmt: skip
#: Valid bodies of the routes that take product ids instead of customer ids.
PRODUCT_BODIES = {"/v1/similar": {"product_ids": ["p01"]}, "/v1/audience": {"product_ids": ["p01"]}}
EXPORT_BODIES = {"/v1/exports": {"table": "scores"}}


def test_every_route_allows_exactly_its_roles(isolated_api: Any) -> None:
    """Each operation of the OpenAPI document is allowed in exactly the roles that the route table names."""
    paths = isolated_api.client.get("/openapi.json").json()["paths"]
    assert {(method.upper(), path) for path in paths for method in paths[path]} == {
        (r.method, r.path) for r in routes.ROUTES
    }
    isolated_api.post("/v1/customers", [{"customer_id": role} for role in routes.ROLES])
    _score_all_customers(isolated_api)
    export_id = _export_scores(isolated_api)
    for route in routes.ROUTES:
        for role in (None, *routes.ROLES):
            # An erased customer is unknown afterwards, so each role erases a customer of its own.
            path = route.path.replace("{customer_id}", str(role) if route.path.endswith("/erase") else "c000")
            path = path.replace("{export_id}", export_id)
            headers = isolated_api.key(role) if role else {}
            body = (RECORDS | PRODUCT_BODIES | EXPORT_BODIES).get(route.path, {"customer_ids": ["c000"]})
            content = {"json": body} if route.method == "POST" else {}
            status = isolated_api.client.request(route.method, path, headers=headers, **content).status_code
            done = 202 if (route.method, route.path) == ("POST", "/v1/exports") else 200
            expected = done if route.is_public or role in route.roles else 403 if role else 401
            assert status == expected, (route.method, path, role)


def _export_scores(api: Any) -> str:
    """The id of a finished export."""
    from serving.exports import export_runner

    export_id = api.post("/v1/exports", {"table": "scores"}, "admin").json()["export_id"]
    export_runner.run_jobs(api.shop)
    return str(export_id)


def _score_all_customers(api: Any) -> None:
    """Score all customers, as the nightly run does: before that there is no at-risk list."""
    from serving import runtime
    from serving.scoring import batch

    server_runtime = runtime.open_runtime(api.shop)
    server_runtime.features.apply()
    champion = server_runtime.champion("churn")
    batch.score_all_customers(
        api.shop, server_runtime.features, {"churn": (champion.version, champion.model)}, server_runtime.now()
    )


def test_a_till_may_only_record_sales_and_read_recommendations_and_offers(api: Any) -> None:
    allowed = {route.path for route in routes.ROUTES if "till" in route.roles}
    predictions = {
        f"/v1/{prefix}{question}"
        for prefix in ("", "customers/{customer_id}/")
        for question in ("recommendations", "offers")
    }
    assert allowed == {"/v1/transactions", "/v1/similar", *predictions}


def test_an_analyst_may_change_nothing() -> None:
    writing_paths = {*RECORDS, "/v1/customers/{customer_id}/erase", "/v1/customers/{customer_id}/export"}
    assert not {route.path for route in routes.ROUTES if "analyst" in route.roles} & writing_paths


# Headers, metrics, logs and OpenAPI -----------------------------------------------------------------------


def test_a_valid_request_id_is_returned_and_any_other_is_replaced(api: Any) -> None:
    request_id = "0e1d2c3b-4a59-4687-9788-a9bacbdcedfe"
    assert api.read("/livez", **{"X-Request-Id": request_id}).headers["x-request-id"] == request_id
    replacement = api.read("/livez", **{"X-Request-Id": CANARY}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f-]{36}", replacement)


def test_responses_may_not_be_cached(api: Any) -> None:
    headers = api.read("/v1/customers/c000/churn").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "bentoml" not in str(headers).lower()


def test_metrics_are_labelled_by_route_template_and_not_by_customer(api: Any) -> None:
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


def test_unknown_methods_add_no_metric_labels(api: Any) -> None:
    for number in range(3):
        api.client.request(f"CANARY{number}", "/v1/churn", headers=api.key("admin"))
    assert "CANARY" not in api.client.get("/metrics").text


def test_logs_contain_route_templates_and_no_customer_ids(api: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    api.read("/v1/customers/c001/churn")
    api.read(f"/v1/customers/{CANARY}/scores")
    api.post("/v1/churn", {"customer_ids": [CANARY], CANARY: 1})
    records = [record for record in caplog.records if not record.name.startswith("httpx")]
    log_text = "\n".join(logging.Formatter().format(record) for record in records)
    assert '"route": "/v1/customers/{customer_id}/scores"' in log_text
    assert not re.search(r"c001|canary", log_text.lower())
    assert api.keys["admin"] not in log_text


def test_liveness_and_readiness_are_reported(api: Any) -> None:
    assert api.client.get("/livez").status_code == 200
    ready = api.client.get("/readyz").json()
    assert ready == {
        "status": "ready",
        "models": dict.fromkeys(("recommender", "offers", "churn", "timing", "restock", "value"), "1"),
        "reasons": [],
    }


def test_openapi_describes_requests_responses_and_problems(api: Any) -> None:
    document = api.client.get("/openapi.json").json()
    assert document["info"]["title"] == "regulars"
    assert "bentoml" not in str(document).lower()
    prediction = document["paths"]["/v1/recommendations"]["post"]
    assert set(prediction["responses"]) == {"200", "401", "403", "413", "415", "422", "500", "503"}
    assert prediction["responses"]["422"]["content"].keys() == {"application/problem+json"}
    assert document["paths"]["/livez"]["get"]["security"] == []
    ingestion = document["paths"]["/v1/transactions"]["post"]
    assert {"source", "idempotency-key"} <= {parameter["name"].lower() for parameter in ingestion["parameters"]}
    record_schema, list_schema = ingestion["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
    assert {"order_id", "product_id", "sold_at", "quantity", "amount"} == set(record_schema["required"])
    assert list_schema["maxItems"] == 1_000
    assert set(document["paths"]["/v1/customers/{customer_id}/erase"]["post"]["responses"]) >= {"200", "404", "422"}
    referenced = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert referenced == set(document["components"]["schemas"])


# Failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_bulk", [True, False], ids=["BentoML's routes", "ours"])
def test_an_unexpected_error_is_a_problem_without_its_message(
    isolated_api: Any, is_bulk: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 500; the log names the type and the file, and nothing repeats the message."""

    def fail(*_: Any) -> None:
        raise ArithmeticError(f"cannot score {CANARY}")

    monkeypatch.setattr(predictions, "answer_churn", fail)
    response = (
        isolated_api.post("/v1/churn", {"customer_ids": ["c000", CANARY]})
        if is_bulk
        else isolated_api.read("/v1/customers/c000/churn")
    )
    problem = assert_problem(response, 500)
    assert "cannot score" not in response.text
    log_text = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("regulars"))
    assert re.search(f"{problem['request_id']}.*: ArithmeticError at test_middleware.py", log_text)
    assert "canary" not in caplog.text.lower()
    assert "cannot score" not in caplog.text


def test_an_unavailable_database_is_answered_with_503() -> None:
    from customers.shop.errors import ShopUnavailable
    from serving.http import problems

    problem = problems.from_exception(ShopUnavailable("the customer database does not answer at /srv/shop.db"))
    assert problem.status == 503
    assert problem.headers["Retry-After"]
    assert "/srv" not in problem.detail


@pytest.mark.parametrize("path", ["/v1/at-risk", "/v1/customers/c000"])
def test_a_request_that_takes_too_long_is_answered_with_503(
    api: Any, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "TIMEOUT_SECONDS", 0.0)
    response = api.read(path)
    assert assert_problem(response, 503)["detail"] == middleware.TIMEOUT_DETAIL
    assert response.headers["retry-after"]


def test_websocket_connections_are_refused(api: Any) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), api.client.websocket_connect("/v1/churn"):
        pass
