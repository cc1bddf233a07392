"""The same shop on PostgreSQL and Redis: the same night, and every answer over HTTP."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from customers.database import engine
from customers.reports import exports
from customers.security import api_keys
from customers.shop import settings
from customers.shop.settings import Shop
from features.store import feature_store
from pipelines import operations
from pipelines.nightly import run as nightly_run

ANSWERS = ("recommendations", "offers", "churn", "next-purchase", "value", "restock")


moment = datetime.fromisoformat


def silent(text: str) -> None:
    """Nobody watches the night in a test."""


@pytest.fixture(scope="module")
def in_earnest(
    grocer: Callable[[Path], Shop], new_database: Callable[..., str], redis: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SimpleNamespace]:  # fmt: skip
    """The small grocer after a night on both servers, and its api."""
    from starlette.testclient import TestClient

    from serving.service import Regulars

    home = tmp_path_factory.mktemp("earnest") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGULARS_DATABASE_URL", new_database())
        patch.setenv("REGULARS_ONLINE_STORE", f"{redis.rpartition('/')[0]}/5")
        patch.setenv("REGULARS_HOME", str(home))
        shop = grocer(home)
        told = nightly_run.run_nightly(shop, progress=silent)
        key = api_keys.create_key(shop, "admin")
        door = {"Authorization": f"Bearer {key}"}
        with TestClient(Regulars.to_asgi(), raise_server_exceptions=False, headers=door) as api:
            yield SimpleNamespace(shop=shop, told=told, api=api, key=key)
        engine.get_engine(shop).dispose()


def only(response: Any) -> dict[str, Any]:
    """The one result of an answer."""
    assert response.status_code == 200, response.text
    [result] = response.json()["results"]
    return result


def test_nothing_of_the_shop_lies_in_sqlite(in_earnest: SimpleNamespace) -> None:
    assert not (in_earnest.shop.home / "shop.db").exists()
    assert not list(in_earnest.shop.home.rglob("online.db*"))


@pytest.mark.parametrize("name", exports.TABLES)
def test_the_night_says_the_same_as_on_sqlite(
    in_earnest: SimpleNamespace, first_night: tuple[Path, Any], name: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for setting in ("DATABASE_URL", "ONLINE_STORE", "HOME"):
            patch.delenv(f"REGULARS_{setting}")
        expected = operations.load_table(settings.open_shop(first_night[0]), name)
    found = operations.load_table(in_earnest.shop, name)
    by = [column for column in ("customer_id", "list", "rank", "category") if column in expected]
    pd.testing.assert_frame_equal(
        found.sort_values(by, ignore_index=True), expected.sort_values(by, ignore_index=True), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_answer_is_given(in_earnest: SimpleNamespace, answer: str) -> None:
    asked = {"customer_ids": ["c001", "nobody"]}
    response = in_earnest.api.post(f"/v1/{answer}", json=asked)
    assert response.status_code == 200, response.text
    known, unknown = response.json()["results"]
    plain = in_earnest.told["models"][MODEL[answer]]["fallback"] or (answer == "restock" and not known["items"])
    assert (known["known"], known["fallback"]) == (True, plain)
    assert (unknown["known"], unknown["fallback"]) == (False, True)
    assert only(in_earnest.api.get(f"/v1/customers/c001/{answer}"))["customer_id"] == "c001"


MODEL = {
    "recommendations": "recommender", "offers": "offers", "churn": "churn", "next-purchase": "timing",
    "value": "value", "restock": "restock",
}  # fmt: skip


def test_a_sale_changes_the_next_answer_and_is_done_once(in_earnest: SimpleNamespace) -> None:
    api = in_earnest.api
    endangered = api.get("/v1/at-risk?limit=1&band=high").json()["items"][0]["customer_id"]
    before = only(api.get(f"/v1/customers/{endangered}/churn"))
    awaited = only(api.get(f"/v1/customers/{endangered}/next-purchase"))
    line = {"order_id": "till-1", "line_id": "1", "customer_id": endangered, "product_id": "p04",
            "sold_at": "2025-07-24T18:00:00", "quantity": 1, "amount": "5.00"}  # fmt: skip
    answers = [api.post("/v1/transactions", json=line, headers={"Idempotency-Key": "till-1"}) for _ in range(2)]
    assert [answer.json()["inserted"] for answer in answers] == [1, 1]
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    after = only(api.get(f"/v1/customers/{endangered}/churn"))
    assert after["probability"] < before["probability"]
    assert only(api.get(f"/v1/customers/{endangered}/next-purchase"))["p"]["28"] > awaited["p"]["28"]
    assert moment(after["features_as_of"]) > moment(before["features_as_of"])
    orders = api.get(f"/v1/customers/{endangered}").json()["orders"]
    assert sum(order["order_id"] == "till-1" for order in orders) == 1


def test_the_profile_has_what_was_recorded(in_earnest: SimpleNamespace) -> None:
    profile = in_earnest.api.get("/v1/customers/c003").json()
    assert profile["profile"]["email"] == "c3@example.com"
    assert profile["interactions"]
    assert in_earnest.api.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("route", "record"),
    [
        ("catalogue/offers", {"offer_id": "new", "starts_at": "2025-07-01", "ends_at": "2025-09-01",
                               "product_ids": ["p01"]}),
        ("interactions", {"interaction_id": "new", "customer_id": "c004", "happened_at": "2025-07-20T10:00:00",
                          "channel": "phone", "kind": "complaint", "text": "面包不新鲜"}),
        ("consents", {"customer_id": "c004", "purpose": "marketing_email", "state": "granted", "at": "2025-07-01"}),
        ("customers", {"customer_id": "newcomer", "given_name": "李雷", "email": "lei@example.com"}),
        ("products", {"product_id": "p99", "category": "bread", "price": "1.50"}),
    ],
)  # fmt: skip
def test_a_record_is_kept_once(in_earnest: SimpleNamespace, route: str, record: dict[str, Any]) -> None:
    answers = [in_earnest.api.post(f"/v1/{route}", json=record).json() for _ in range(2)]
    assert [(answer["inserted"], answer["unchanged"]) for answer in answers] == [(1, 0), (0, 1)]


def test_the_desk_shows_the_customer(in_earnest: SimpleNamespace) -> None:
    api = in_earnest.api
    form = {"key": in_earnest.key, "to": "/customers/c003"}
    signed = api.post("/sign-in", data=form, headers={"Sec-Fetch-Site": "same-origin"}, follow_redirects=False)
    assert (signed.status_code, signed.headers["location"]) == (303, "/customers/c003")
    assert "Slipping away" in api.get("/").text
    assert "张伟" in api.get("/customers/c003").text
    api.cookies.clear()


def test_an_erased_customer_is_gone_from_both_and_stays_away(
    in_earnest: SimpleNamespace, small_shop_files: Path
) -> None:
    api, shop = in_earnest.api, in_earnest.shop
    key = next(iter(customer_key(shop, "c010")))
    features = feature_store.open_store(shop.home / "features", shop.online_store)
    assert features.online_features("churn_v1", [key])["event_timestamp"].notna().all()
    assert api.post("/v1/customers/c010/export").json()["orders"]
    assert api.post("/v1/customers/c010/erase").status_code == 200
    assert features.online_features("churn_v1", [key])["event_timestamp"].isna().all()
    assert api.get("/v1/customers/c010").status_code == 404
    assert only(api.get("/v1/customers/c010/churn"))["fallback"]
    for kind in ("customers", "transactions", "interactions", "consents"):
        operations.load_records(shop, kind, [small_shop_files / f"{kind}.csv"], source="files")
    assert api.get("/v1/customers/c010").status_code == 404


def customer_key(shop: Shop, name: str) -> list[int]:
    from customers.people import lookup

    return list(lookup.find_keys(shop, [name]).values())
