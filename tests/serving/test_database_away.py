"""While the customer database is away, what a worker has read last answers questions, and nothing else is answered."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

QUESTIONS = ("churn", "next-purchase", "value", "recommendations", "restock", "offers")
LIMIT_SECONDS = 1.0


@pytest.fixture
def served(home_with_scores: Path, tmp_path: Path, api_for: Any) -> Iterator[Any]:
    """An API whose customers are scored and whose worker follows the database step by step: `follow`, `away`."""
    from serving import runtime
    from serving.lookup import answers

    shutil.copytree(home_with_scores, tmp_path / "home")
    for api in api_for(tmp_path / "home"):
        server_runtime = runtime.open_runtime(api.shop)
        server_runtime.features.apply()
        api.outage = answers.get_outage_answers(server_runtime)
        api.follow = api.outage.follow
        api.away = partial(database_away, api.shop)
        yield api


@contextmanager
def database_away(shop: Any) -> Iterator[None]:
    """The database does not answer inside the block, and answers again after it."""
    from customers.database import direct_reads

    reader = direct_reads.get_reader(shop)

    def refuse() -> None:
        raise sa.exc.OperationalError("connect", {}, Exception("refused by 10.1.2.3"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_connect", refuse)
        patch.setattr("customers.database.outages.RETRY_SECONDS", 0.05)
        reader.close()
        yield
    deadline = time.monotonic() + 10
    while reader.is_away:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def timed(request: Any) -> Any:
    began_at = time.monotonic()
    response = request()
    assert time.monotonic() < began_at + LIMIT_SECONDS
    return response


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_last_night_answers_with_its_age(served: Any, question: str) -> None:
    path, body = f"/v1/customers/c001/{question}", {"customer_ids": ["c001", "nobody", "c002", "files:c003"]}
    before, bulk_before = served.read(path), served.post(f"/v1/{question}", body)
    assert "degraded" not in before.json()
    served.follow()
    with served.away():
        degraded = timed(lambda: served.read(path))
        bulk = timed(lambda: served.post(f"/v1/{question}", body))
    assert degraded.status_code == bulk.status_code == 200, degraded.text
    assert degraded.json()["results"] == before.json()["results"]
    assert degraded.json()["models"] == before.json()["models"]
    assert degraded.json()["degraded"]["features_as_of"] == before.json()["results"][0]["features_as_of"]
    assert degraded.json()["degraded"]["age_seconds"] >= 0
    assert "database does not answer" in degraded.json()["degraded"]["reason"]
    assert degraded.headers["x-regulars-degraded"].startswith("age=")
    assert "10.1.2.3" not in degraded.text + bulk.text
    results, expected = bulk.json()["results"], bulk_before.json()["results"]
    assert [results[place] for place in (0, 2, 3)] == [expected[place] for place in (0, 2, 3)]
    assert (results[1]["known"], results[1]["fallback"]) == (False, True)
    if question != "offers":
        assert results[1] == expected[1], "the average of all customers, as it was"
    after = served.read(path)
    assert "degraded" not in after.json(), "it has ended by itself"
    assert after.json()["results"] == before.json()["results"]


@pytest.mark.parametrize(("name", "n"), [("any", 3), ("new", 50), ("again", 20)])
def test_lists_of_another_length(served: Any, name: str, n: int) -> None:
    body = {"customer_ids": ["c001", "nobody"], "list": name, "n": n}
    before = served.post("/v1/recommendations", body).json()["results"]
    served.follow()
    with served.away():
        assert served.post("/v1/recommendations", body).json()["results"] == before


def test_a_table_instead_of_json(served: Any) -> None:
    served.read("/v1/customers/c001/churn")
    served.follow()
    with served.away():
        headers = {**served.key("admin"), "Accept": "application/vnd.apache.arrow.stream"}
        response = served.client.post("/v1/churn", json={"customer_ids": ["c001"]}, headers=headers)
    assert response.status_code == 200
    assert response.headers["x-regulars-degraded"]


def test_every_write_and_every_other_question_waits(served: Any) -> None:
    served.read("/v1/customers/c001/churn")
    served.follow()
    sale = {"order_id": "o1", "line_id": "1", "customer_id": "c001", "product_id": "p01", "quantity": 1, "amount": "3"}
    consent = {"customer_id": "c001", "purpose": "profiling", "state": "revoked", "at": "2025-07-24", "source": "web"}
    with served.away():
        refused = [
            timed(lambda: served.post("/v1/transactions", [sale | {"sold_at": "2025-07-24T12:00:00-04:00"}])),
            timed(lambda: served.post("/v1/consents", [consent])),
            timed(lambda: served.post("/v1/customers/c001/erase", {})),
            timed(lambda: served.post("/v1/customers/c001/export", {})),
            timed(lambda: served.read("/v1/customers/c001")),
            timed(lambda: served.read("/v1/customers/c001/scores")),
            timed(lambda: served.read("/v1/at-risk")),
            timed(lambda: served.post("/v1/similar", {"product_ids": ["p01"]})),
            timed(lambda: served.post("/v1/recommendations", {"customer_ids": ["c001"], "max_per_category": 1})),
        ]
        ready = timed(lambda: served.client.get("/readyz"))
        assert served.client.get("/livez").status_code == 200
        assert served.client.get("/metrics").status_code == 200
    assert {response.status_code for response in refused} == {503}
    assert {response.headers["retry-after"] for response in refused} == {"5"}
    assert ready.status_code == 200
    assert any("marked as degraded" in reason for reason in ready.json()["reasons"])
    assert not served.read("/v1/customers/c001/churn").json()["results"][0]["fallback"]


def test_only_keys_that_this_worker_has_verified_are_accepted(served: Any) -> None:
    served.read("/v1/customers/c001/churn", role="agent")
    served.follow()
    with served.away():
        assert served.read("/v1/customers/c001/churn", role="agent").status_code == 200
        unused = served.read("/v1/customers/c001/churn", role="analyst")
        assert (unused.status_code, unused.headers["retry-after"]) == (503, "5")
        invented = served.client.get("/v1/customers/c001/churn", headers={"Authorization": "Bearer rg_000000000000_x"})
        assert invented.status_code == 503
        assert served.client.get("/v1/customers/c001/churn").status_code == 401


def test_a_role_may_do_no_more_than_before(served: Any) -> None:
    served.read("/v1/customers/c001/offers", role="till")
    served.follow()
    with served.away():
        assert served.read("/v1/customers/c001/offers", role="till").status_code == 200
        assert served.read("/v1/customers/c001/churn", role="till").status_code == 403


def revoke(served: Any, role: str) -> None:
    from customers.database import engine
    from customers.database.schema import api_keys as table
    from customers.security import api_keys

    with engine.write_transaction(served.shop) as connection:
        connection.execute(table.delete().where(table.c.prefix == api_keys.key_prefix(served.keys[role])))


@pytest.mark.parametrize("index_fails", [False, True])
def test_a_key_that_was_revoked_before_is_refused(
    served: Any, index_fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.read("/v1/customers/c001/churn", role="agent")
    served.read("/v1/customers/c001/churn", role="admin")
    served.follow()
    revoke(served, "agent")
    if index_fails:
        monkeypatch.setattr(served.outage._index, "follow", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            served.follow()
    else:
        served.follow()
    with served.away():
        assert served.read("/v1/customers/c001/churn", role="agent").status_code == 503
        assert served.read("/v1/customers/c001/churn", role="admin").status_code == 200


def test_a_key_that_was_refused_once_is_refused_in_an_outage_too(served: Any) -> None:
    served.read("/v1/customers/c001/churn", role="agent")
    served.follow()
    revoke(served, "agent")
    assert served.read("/v1/customers/c001/churn", role="agent").status_code == 401
    with served.away():
        assert served.read("/v1/customers/c001/churn", role="agent").status_code == 503


def test_keys_are_accepted_for_a_limited_time(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served.read("/v1/customers/c001/churn")
    served.follow()
    monkeypatch.setattr("serving.http.authentication.MAX_AGE_SECONDS", -1.0)
    with served.away():
        assert served.read("/v1/customers/c001/churn").status_code == 503


def test_a_customer_whose_consents_are_not_those_of_the_night_gets_the_average(served: Any) -> None:
    statement = {"customer_id": "c001", "state": "revoked", "at": "2025-07-24T10:00:00Z", "source": "web"}
    for purpose in ("profiling", "marketing_post"):
        assert served.post("/v1/consents", [statement | {"purpose": purpose}]).status_code == 200
        served.follow()
        with served.away():
            for question in QUESTIONS:
                [result] = served.read(f"/v1/customers/c001/{question}").json()["results"]
                assert (result["known"], result["fallback"], result["features_as_of"]) == (True, True, None)
            offers = served.read("/v1/customers/c001/offers").json()["results"][0]
            assert offers["items"] == []
            assert "cannot be checked" in offers["nothing"]
            assert not served.read("/v1/customers/c002/churn").json()["results"][0]["fallback"]


def test_after_a_sale_the_last_night_answers_but_makes_no_offer(served: Any) -> None:
    sale = {"order_id": "o1", "line_id": "1", "customer_id": "c001", "product_id": "p01", "quantity": 1, "amount": "3"}
    night = served.read("/v1/customers/c001/churn").json()["results"]
    assert served.post("/v1/transactions", [sale | {"sold_at": "2025-07-24T12:00:00-04:00"}]).status_code == 200
    served.follow()
    with served.away():
        assert served.read("/v1/customers/c001/churn").json()["results"] == night
        assert served.read("/v1/customers/c001/offers").json()["results"][0]["items"] == []
        assert served.read("/v1/customers/c002/offers").json()["results"][0]["nothing"] is None


def test_after_a_load_of_a_file_no_offer_is_made(served: Any, tmp_path: Path) -> None:
    from customers.loading import load

    served.read("/v1/customers/c002/offers")
    (tmp_path / "interactions.csv").write_text(
        "interaction_id,customer_id,happened_at,kind\ni-late,c002,2025-07-24T10:00Z,opened\n"
    )
    served.follow()
    with served.away():
        assert served.read("/v1/customers/c002/offers").json()["results"][0]["nothing"] is None
    assert load.load_files(served.shop, "interactions", [tmp_path / "interactions.csv"]).inserted == 1
    served.follow()
    with served.away():
        assert "cannot be checked" in served.read("/v1/customers/c002/offers").json()["results"][0]["nothing"]


def test_averages_that_nobody_has_asked_for_are_not_counted(served: Any) -> None:
    served.read("/v1/customers/c001/churn")

    def count() -> list[str]:
        return [line for line in served.client.get("/metrics").text.splitlines() if line.startswith("regulars_fallb")]

    before = count()
    served.follow()
    assert count() == before


def test_an_erased_customer_is_unknown(served: Any) -> None:
    served.read("/v1/customers/c001/churn")
    served.follow()
    assert served.post("/v1/customers/c001/erase", {}).status_code == 200
    served.follow()
    with served.away():
        assert served.read("/v1/customers/c001/churn").json()["results"][0]["known"] is False


def test_a_worker_that_has_not_read_anything_yet_answers_nothing(served: Any) -> None:
    served.read("/v1/customers/c001/churn")
    with served.away():
        response = timed(lambda: served.read("/v1/customers/c001/churn"))
        ready = served.client.get("/readyz")
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert ready.status_code == 503
    assert "read nothing" in ready.text
    assert served.client.get("/readyz").status_code == 200


def test_a_database_that_is_only_busy_is_logged_and_an_outage_once(
    served: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from customers.shop.errors import ShopUnavailable

    def fail(*_: Any, **__: Any) -> None:
        raise ShopUnavailable("no connection for c001")

    with served.away():
        assert served.read("/v1/at-risk").status_code == 503
    assert "ShopUnavailable" not in caplog.text
    monkeypatch.setattr("serving.http.authentication.authenticate", fail)
    assert served.read("/v1/at-risk").status_code == 503
    assert "ShopUnavailable at" in caplog.text
    assert "c001" not in caplog.text


def test_the_request_that_notices_the_outage_is_answered_too(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from customers.shop.errors import ShopUnavailable

    served.read("/v1/customers/c001/churn")
    served.follow()

    def fail(*_: Any) -> None:
        raise ShopUnavailable("the customer database does not answer")

    monkeypatch.setattr("customers.scores.current_scores.find_statuses", fail)
    served.outage.state._statuses = {}
    assert served.read("/v1/customers/c001/churn").json()["degraded"]
