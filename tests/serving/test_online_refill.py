"""An online store that has lost its features: answers go on from the night, and the store is filled again."""

import sqlite3
import subprocess
import time
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from customers.database import shop_lock
from customers.people import lookup
from customers.privacy import erasure as pending
from serving import online_refill, runtime
from serving.privacy import erasure

QUESTIONS = ("churn", "next-purchase", "value", "recommendations", "restock", "offers")
SALE = {"order_id": "o1", "line_id": "1", "customer_id": "c001", "product_id": "p01", "quantity": 1, "amount": "3",
        "sold_at": "2025-07-24T12:00:00-04:00"}  # fmt: skip


@pytest.fixture
def shop_api(isolated_api: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An API without a night's arrays, so that every answer reads features, and which looks for a loss every time."""
    monkeypatch.setattr("features.store.loss_detector.CHECK_SECONDS", 0.0)
    isolated_api.runtime = runtime.open_runtime(isolated_api.shop)
    isolated_api.runtime.features.apply()
    return isolated_api


def empty_online_store(api: Any) -> None:
    """Delete every row of the online store, as FLUSHALL does in Redis."""
    with sqlite3.connect(api.shop.home / "features" / "feast" / "online.db") as connection:
        tables = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (name,) in tables:
            connection.execute(f'delete from "{name}"')
    connection.close()


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_night_answers_and_after_the_refill_the_store_does(shop_api: Any, question: str) -> None:
    body = {"customer_ids": ["c001", "nobody", "c002", "quiet"]}
    before = shop_api.post(f"/v1/{question}", body).json()
    assert "degraded" not in before
    assert not online_refill.needs_refill(shop_api.runtime)
    empty_online_store(shop_api)
    assert online_refill.needs_refill(shop_api.runtime)
    lost = shop_api.post(f"/v1/{question}", body).json()
    assert lost["results"] == before["results"]
    assert "lost its features" in lost["degraded"]["reason"]
    assert any("lost its features" in each for each in shop_api.client.get("/readyz").json()["reasons"])
    assert online_refill.refill(shop_api.runtime)
    after = shop_api.post(f"/v1/{question}", body).json()
    assert after["results"] == before["results"]
    assert "degraded" not in after


def test_a_sale_afterwards_is_scored_on_present_features(shop_api: Any) -> None:
    [before] = shop_api.read("/v1/customers/c001/churn").json()["results"]
    empty_online_store(shop_api)
    assert shop_api.post("/v1/transactions", SALE, "till").json()["inserted"] == 1
    answer = shop_api.read("/v1/customers/c001/churn").json()
    assert "degraded" not in answer
    later, earlier = (datetime.fromisoformat(each["features_as_of"]) for each in (answer["results"][0], before))
    assert later > earlier
    assert shop_api.read("/v1/customers/c002/churn").json()["degraded"]


def test_a_customer_with_a_sale_since_the_night_gets_present_features_again(shop_api: Any) -> None:
    assert shop_api.post("/v1/transactions", SALE, "till").json()["inserted"] == 1
    [sold] = shop_api.read("/v1/customers/c001/churn").json()["results"]
    empty_online_store(shop_api)
    assert shop_api.read("/v1/customers/c001/churn").json()["degraded"]
    assert online_refill.refill(shop_api.runtime)
    answer = shop_api.read("/v1/customers/c001/churn").json()
    assert "degraded" not in answer
    assert answer["results"][0]["probability"] == sold["probability"]


def test_a_store_that_is_half_filled_is_still_being_filled(shop_api: Any) -> None:
    features = shop_api.runtime.features
    as_of = features.latest_snapshot_at("offers_v1")
    empty_online_store(shop_api)
    first, *_, last = sorted(features._loss_detector._sample_customers())
    features._materialise(first, as_of)
    assert online_refill.needs_refill(shop_api.runtime)
    features.materialise(as_of)
    assert not online_refill.needs_refill(shop_api.runtime)
    assert last != first


def test_nobody_is_answered_from_half_a_customer_during_the_refill(shop_api: Any) -> None:
    body = {"customer_ids": ["c001", "nobody", "c002"]}
    before = shop_api.post("/v1/churn", body).json()
    features = shop_api.runtime.features
    empty_online_store(shop_api)
    features._materialise("engagement", features.latest_snapshot_at("offers_v1"))
    answer = shop_api.post("/v1/churn", body).json()
    assert answer["results"] == before["results"]
    assert "lost its features" in answer["degraded"]["reason"]
    # Who was contacted has a row of this view alone.
    keys = list(range(1, 30))
    answered = shop_api.runtime.load_service("offers_v1", keys)
    stored = features.snapshot_features("offers_v1", keys, features.latest_snapshot_at("offers_v1"))
    names = features.feature_names("offers_v1")
    pd.testing.assert_frame_equal(answered[names], stored[names])


def test_one_process_fills_it_again(shop_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    class Running:
        def poll(self) -> None:
            return None

    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: (started.append(command), Running())[1])
    refill = online_refill.OnlineRefill(shop_api.runtime)
    refill.check()
    assert started == []
    empty_online_store(shop_api)
    refill.check()
    refill.check()
    assert [command[1:3] for command in started] == [["-m", "serving.online_refill"]]
    with shop_lock.hold(shop_api.shop, erasure.REFILL_LOCK):
        online_refill.OnlineRefill(shop_api.runtime).check()
        assert online_refill.refill(shop_api.runtime), "another process does it"
    assert len(started) == 1
    assert online_refill.needs_refill(shop_api.runtime)


def test_who_is_erased_during_the_refill_does_not_come_back(shop_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refill has read the snapshot before the erasure, and writes its rows after it."""
    features = shop_api.runtime.features
    key = lookup.find_keys(shop_api.shop, ["c001"])["c001"]
    copied = features.snapshot_features("churn_v1", [key], features.latest_snapshot_at("churn_v1"))
    assert copied.notna().to_numpy().any()
    materialise, rows = features.materialise, []

    def materialise_late(as_of: datetime, **options: Any) -> dict[str, int]:
        frame = pd.read_parquet(features.folder / "rhythm" / "part.parquet")
        rows.append(frame[frame["customer_key"] == key])
        assert not shop_api.post("/v1/customers/c001/erase", {}, "agent").json()["forgotten"]
        features.push("rhythm", rows[0])
        return materialise(as_of, **options)

    monkeypatch.setattr(features, "materialise", materialise_late)
    empty_online_store(shop_api)
    assert online_refill.refill(shop_api.runtime)
    assert len(rows[0])
    assert features.online_features("churn_v1", [key])["event_timestamp"].isna().all()
    assert pending.pending_erasures(shop_api.shop) == []


def test_who_has_withdrawn_a_consent_does_not_get_the_nights_features_back(
    shop_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they cannot be refreshed: they stay in the queue."""
    statement = {"customer_id": "c001", "purpose": "profiling_sensitive", "state": "revoked",
                 "at": "2025-07-01"}  # fmt: skip
    assert shop_api.post("/v1/consents", statement).status_code == 200
    key_by_id = lookup.find_keys(shop_api.shop, ["c001", "c002"])
    keys = [key_by_id["c001"], key_by_id["c002"]]
    monkeypatch.setattr("serving.scoring.refresh.rescore_after_batch", lambda *_: False)
    empty_online_store(shop_api)
    assert not online_refill.refill(shop_api.runtime)
    restored = shop_api.runtime.features.online_features("churn_v1", keys)
    assert restored["event_timestamp"].isna().tolist() == [True, False]


def test_a_refill_that_does_not_last_waits_longer_each_time(shop_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[float] = []
    now = [0.0]
    ended = SimpleNamespace(poll=lambda: 1)
    monkeypatch.setattr(online_refill, "needs_refill", lambda _: True)
    monkeypatch.setattr(online_refill, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: (started.append(now[0]), ended)[1])
    refill = online_refill.OnlineRefill(shop_api.runtime)
    with shop_lock.hold(shop_api.shop, "night"):
        refill.check()
    assert started == []
    for now[0] in map(float, range(0, 80, 5)):
        refill.check()
    assert started == [0.0, 10.0, 30.0, 70.0]


def test_an_erasure_in_a_small_shop_is_no_loss(shop_api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    features = shop_api.runtime.features
    keys = pd.read_parquet(features.folder / "rhythm" / "part.parquet")["customer_key"].unique().tolist()
    lost: list[bool] = []
    delete = features._values.delete
    monkeypatch.setattr(
        features._values, "delete", lambda *a: (delete(*a), lost.append(online_refill.needs_refill(shop_api.runtime)))
    )
    features.delete_customers(keys[: len(keys) // 2])
    assert lost == [False]


def test_before_the_first_night_nothing_is_lost(api_before_first_run: Any) -> None:
    assert not online_refill.needs_refill(runtime.open_runtime(api_before_first_run.shop))


def test_a_sample_is_read_again_after_another_night(shop_api: Any) -> None:
    features = shop_api.runtime.features
    sample = features._loss_detector._sample_customers()
    assert all(0 < len(set(keys)) == len(keys) <= 25 for keys in sample.values())
    began_at = time.monotonic()
    assert features._loss_detector._sample_customers() == sample
    assert time.monotonic() < began_at + 0.1
