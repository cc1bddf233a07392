"""The small grocer on PostgreSQL and Redis: the nightly run gives the same tables, and the HTTP API works."""

import shutil
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

pytestmark = pytest.mark.acceptance

ENDPOINTS = ("recommendations", "offers", "churn", "next-purchase", "value", "restock")


def ignore_progress(text: str) -> None:
    """A progress callback that does nothing."""


@pytest.fixture(scope="module")
def deployed(
    new_small_shop: Callable[[Path], Shop], new_database: Callable[..., str], redis: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SimpleNamespace]:  # fmt: skip
    """The small grocer after a nightly run on both servers: shop, run summary, API client and admin key."""
    from starlette.testclient import TestClient

    from serving.service import Regulars

    home = tmp_path_factory.mktemp("servers") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGULARS_DATABASE_URL", new_database())
        patch.setenv("REGULARS_ONLINE_STORE", f"{redis.rpartition('/')[0]}/5")
        patch.setenv("REGULARS_HOME", str(home))
        shop = new_small_shop(home)
        summary = nightly_run.run_nightly(shop, progress=ignore_progress)
        key = api_keys.create_key(shop, "admin")
        headers = {"Authorization": f"Bearer {key}"}
        with TestClient(Regulars.to_asgi(), raise_server_exceptions=False, headers=headers) as api:
            yield SimpleNamespace(shop=shop, summary=summary, api=api, key=key)
        engine.get_engine(shop).dispose()


@pytest.fixture(scope="module")
def sqlite_home(first_run_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same grocer after a nightly run on SQLite, which no test has changed."""
    home = tmp_path_factory.mktemp("sqlite") / "home"
    shutil.copytree(first_run_home, home)
    return home


def single_result(response: Any) -> dict[str, Any]:
    """The result of a response about one customer."""
    assert response.status_code == 200, response.text
    [result] = response.json()["results"]
    return result


def test_no_sqlite_file_is_created(deployed: SimpleNamespace) -> None:
    assert not (deployed.shop.home / "shop.db").exists()
    assert not list(deployed.shop.home.rglob("online.db*"))


@pytest.mark.parametrize("name", exports.TABLES)
def test_the_exported_tables_equal_those_of_sqlite(deployed: SimpleNamespace, sqlite_home: Path, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for setting in ("DATABASE_URL", "ONLINE_STORE", "HOME"):
            patch.delenv(f"REGULARS_{setting}")
        expected = operations.load_table(settings.open_shop(sqlite_home), name)
    actual = operations.load_table(deployed.shop, name)
    by = [column for column in ("customer_id", "list", "rank", "category") if column in expected]
    pd.testing.assert_frame_equal(
        actual.sort_values(by, ignore_index=True), expected.sort_values(by, ignore_index=True), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_endpoint_responds(deployed: SimpleNamespace, endpoint: str) -> None:
    response = deployed.api.post(f"/v1/{endpoint}", json={"customer_ids": ["c001", "nobody"]})
    assert response.status_code == 200, response.text
    customer, stranger = response.json()["results"]
    model = deployed.summary["models"][MODELS[endpoint]]
    is_fallback = model["fallback"] or (endpoint == "restock" and not customer["items"])
    assert (customer["known"], customer["fallback"]) == (True, is_fallback)
    assert (stranger["known"], stranger["fallback"]) == (False, True)
    assert single_result(deployed.api.get(f"/v1/customers/c001/{endpoint}"))["customer_id"] == "c001"


MODELS = {
    "recommendations": "recommender", "offers": "offers", "churn": "churn", "next-purchase": "timing",
    "value": "value", "restock": "restock",
}  # fmt: skip


def test_a_sale_changes_the_next_prediction_and_is_recorded_once(deployed: SimpleNamespace) -> None:
    api = deployed.api
    customer_id = api.get("/v1/at-risk?limit=1&band=high").json()["items"][0]["customer_id"]
    before = single_result(api.get(f"/v1/customers/{customer_id}/churn"))
    timing_before = single_result(api.get(f"/v1/customers/{customer_id}/next-purchase"))
    line = {"order_id": "till-1", "line_id": "1", "customer_id": customer_id, "product_id": "p04",
            "sold_at": "2025-07-24T18:00:00", "quantity": 1, "amount": "5.00"}  # fmt: skip
    answers = [api.post("/v1/transactions", json=line, headers={"Idempotency-Key": "till-1"}) for _ in range(2)]
    assert [answer.json()["inserted"] for answer in answers] == [1, 1]
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    after = single_result(api.get(f"/v1/customers/{customer_id}/churn"))
    assert after["probability"] < before["probability"]
    assert single_result(api.get(f"/v1/customers/{customer_id}/next-purchase"))["p"]["28"] > timing_before["p"]["28"]
    assert datetime.fromisoformat(after["features_as_of"]) > datetime.fromisoformat(before["features_as_of"])
    orders = api.get(f"/v1/customers/{customer_id}").json()["orders"]
    assert sum(order["order_id"] == "till-1" for order in orders) == 1


def test_the_profile_shows_the_loaded_records(deployed: SimpleNamespace) -> None:
    profile = deployed.api.get("/v1/customers/c003").json()
    assert profile["profile"]["email"] == "c3@example.com"
    assert profile["interactions"]
    assert deployed.api.get("/readyz").status_code == 200


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
def test_a_repeated_record_is_stored_once(deployed: SimpleNamespace, route: str, record: dict[str, Any]) -> None:
    answers = [deployed.api.post(f"/v1/{route}", json=record).json() for _ in range(2)]
    assert [(answer["inserted"], answer["unchanged"]) for answer in answers] == [(1, 0), (0, 1)]


def test_the_console_shows_the_customer(deployed: SimpleNamespace) -> None:
    api = deployed.api
    form = {"key": deployed.key, "to": "/customers/c003"}
    response = api.post("/sign-in", data=form, headers={"Sec-Fetch-Site": "same-origin"}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/customers/c003")
    assert "Customers at risk" in api.get("/").text
    assert "张伟" in api.get("/customers/c003").text
    api.cookies.clear()


def test_an_erased_customer_is_removed_from_both_and_not_loaded_again(
    deployed: SimpleNamespace, small_shop_files: Path
) -> None:
    api, shop = deployed.api, deployed.shop
    key = customer_key(shop, "c010")
    features = feature_store.open_store(shop.home / "features", shop.online_store)
    assert features.online_features("churn_v1", [key])["event_timestamp"].notna().all()
    assert api.post("/v1/customers/c010/export").json()["orders"]
    assert api.post("/v1/customers/c010/erase").status_code == 200
    assert features.online_features("churn_v1", [key])["event_timestamp"].isna().all()
    assert api.get("/v1/customers/c010").status_code == 404
    assert single_result(api.get("/v1/customers/c010/churn"))["fallback"]
    for kind in ("customers", "transactions", "interactions", "consents"):
        operations.load_records(shop, kind, [small_shop_files / f"{kind}.csv"], source="files")
    assert api.get("/v1/customers/c010").status_code == 404


def customer_key(shop: Shop, customer_id: str) -> int:
    from customers.people import lookup

    return lookup.find_keys(shop, [customer_id])[customer_id]
