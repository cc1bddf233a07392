"""Data export and erasure of a customer: after an erasure none of their data is left, and nothing restores it."""

import json
import subprocess
from typing import Any

import pandas as pd
import pytest


def find_key(api: Any, name: str) -> int:
    from customers.people import lookup

    return lookup.find_keys(api.shop, [name])[name]


def erase(api: Any, name: str, role: str = "agent") -> Any:
    return api.post(f"/v1/customers/{name}/erase", {}, role)


def test_an_export_contains_all_data_about_a_customer(api: Any) -> None:
    response = api.post("/v1/customers/c000/export", {}, "agent")
    assert response.status_code == 200
    exported = response.json()
    assert exported["customer_id"] == "c000"
    assert exported["profile"]["email"] == "w.canarybird@example.com"
    assert {score["model"] for score in exported["scores"]} == {
        "churn", "timing", "value", "recommender", "restock", "offers"
    }  # fmt: skip
    assert exported["orders"]
    assert exported["interactions"]


def test_an_erased_customer_is_removed_everywhere(api: Any) -> None:
    key = find_key(api, "c010")
    lines = len(load_ledger(api))
    ended = subprocess.Popen(["true"])
    ended.wait()
    leftovers = [api.shop.home / "loading" / f"{ended.pid}-x", api.shop.home / "features" / f".portions.{ended.pid}.y"]
    for folder in leftovers:  # of a load and of a nightly run that were killed
        folder.mkdir(parents=True)
    response = erase(api, "c010")
    assert response.status_code == 200
    assert response.json()["erased"]
    assert response.json()["forgotten"]
    assert response.json()["lines"] > 0

    for path in ("", "/scores"):
        assert api.read(f"/v1/customers/c010{path}").status_code == 404
    assert api.post("/v1/customers/c010/export", {}).status_code == 404
    answer = api.read("/v1/customers/c010/churn").json()["results"][0]
    assert (answer["known"], answer["fallback"]) == (False, True)
    listed = api.read("/v1/at-risk?limit=1000&band=lapsed").text + api.read("/v1/at-risk?limit=1000").text
    assert "c010" not in listed

    assert not any(folder.exists() for folder in leftovers)
    assert len(load_ledger(api)) == lines  # the ledger keeps every line
    assert key not in set(load_ledger(api)["customer_key"].dropna())
    for view in (api.shop.home / "features").glob("*/part.parquet"):
        table = pd.read_parquet(view)
        assert "customer_key" not in table or key not in set(table["customer_key"])
    assert load_online_features(api, key)["event_timestamp"].isna().all()


def load_ledger(api: Any) -> pd.DataFrame:
    """The Parquet mirror of the ledger, one row per line."""
    return pd.concat(map(pd.read_parquet, (api.shop.home / "ledger").glob("month=*/part.parquet")))


def load_online_features(api: Any, key: int) -> pd.DataFrame:
    from serving import runtime

    return runtime.open_runtime(api.shop).features.online_features("churn_v1", [key])


def test_no_record_sale_or_nightly_run_restores_an_erased_customer(api: Any, score_customers: Any) -> None:
    key = find_key(api, "c011")
    assert erase(api, "c011").status_code == 200
    person = {"customer_id": "c011", "given_name": "Wilhelmina"}
    refused = api.post("/v1/customers", person)
    assert refused.status_code == 422
    assert "erased" in refused.text
    sale = {"order_id": "after", "customer_id": "c011", "product_id": "p03", "sold_at": "2025-07-24", "quantity": 1,
            "amount": 3}  # fmt: skip
    assert api.post("/v1/transactions", sale).json()["inserted"] == 1
    score_customers(api.shop)
    assert api.read("/v1/customers/c011").status_code == 404
    assert load_online_features(api, key)["event_timestamp"].isna().all()


def test_four_simultaneous_erasures_with_one_key_are_executed_once_and_replayed(api: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    headers = api.key("agent") | {"Idempotency-Key": "erase-c013"}
    with ThreadPoolExecutor(4) as executor:
        futures = [executor.submit(api.client.post, "/v1/customers/c013/erase", headers=headers) for _ in range(4)]
        responses = [future.result() for future in futures]
    assert [response.status_code for response in responses] == [200] * 4
    assert len({response.text for response in responses}) == 1
    assert sum("idempotent-replayed" in response.headers for response in responses) == 3
    assert api.client.post("/v1/customers/c013/erase", headers=headers).text == responses[0].text


def test_an_unknown_customer_can_be_neither_exported_nor_erased(api: Any) -> None:
    for action in ("export", "erase"):
        response = api.post(f"/v1/customers/canary/{action}", {}, "agent")
        assert response.status_code == 404
        assert "canary" not in response.text


@pytest.mark.parametrize("role", ["campaign", "analyst", "till"])
def test_roles_that_do_not_serve_customers_may_neither_export_nor_erase(api: Any, role: str) -> None:
    for action in ("export", "erase"):
        assert api.post(f"/v1/customers/c002/{action}", {}, role).status_code == 403


def test_an_erasure_stays_pending_during_a_nightly_run(api: Any) -> None:
    """The run may have read their data before; it completes pending erasures itself at its end."""
    import fcntl

    from customers.privacy import erasure
    from serving import runtime
    from serving.privacy import erasure as privacy_erasure

    with (api.shop.home / "night.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not erase(api, "c012").json()["forgotten"]
        assert len(erasure.pending_erasures(api.shop)) == 1
        assert (
            privacy_erasure.erase_derived_data(api.shop, runtime.open_runtime(api.shop).features, held_lock="night")
            == 1
        )
    assert erasure.pending_erasures(api.shop) == []


def test_an_erased_profile_cannot_be_exported(api: Any) -> None:
    person = {"customer_id": "gone", "given_name": "Xanthippe", "email": "xanthippe@example.com", "city": "Ulan Bator"}
    assert api.post("/v1/customers", person).status_code == 200
    exported = json.loads(api.post("/v1/customers/gone/export", {}).text)
    assert exported["profile"]["city"] == "Ulan Bator"
    assert erase(api, "gone").json()["forgotten"]
    response = api.post("/v1/customers/gone/export", {})
    assert response.status_code == 404
    assert "Xanthippe" not in response.text


def test_another_home_follows_an_erasure(isolated_api: Any, tmp_path: Any) -> None:
    """A copy of the home stands for that of a second machine, which shares the database and the online store."""
    import shutil
    from dataclasses import replace

    from features.store import feature_store
    from serving.privacy import erasure

    other = replace(isolated_api.shop, home=tmp_path / "other")
    shutil.copytree(isolated_api.shop.home, other.home)
    export = other.home / "exports" / "scores.csv"
    export.parent.mkdir(exist_ok=True)
    export.write_text("customer_id\nc010\n")
    part = other.home / "exports" / "scores" / "part-00000.parquet"
    part.parent.mkdir()
    pd.DataFrame({"customer_id": ["c010"]}).to_parquet(part)
    key = find_key(isolated_api, "c010")
    assert erase(isolated_api, "c010").json()["forgotten"]
    assert not erasure.is_following(other)
    assert key in set(pd.read_parquet(other.home / "features" / "rhythm" / "part.parquet")["customer_key"])
    erasure.follow_erasures(other, feature_store.open_store(other.home / "features"))
    assert erasure.is_following(other)
    assert not export.exists()
    assert not part.exists()
    for path in sorted(other.home.rglob("part.parquet")):
        table = pd.read_parquet(path)
        assert "customer_key" not in table or key not in set(table["customer_key"].dropna())
