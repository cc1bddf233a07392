"""Inputs of scoring: features are read once for all questions of a request, and the night reads what it scores."""

from typing import Any

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def reads(api: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The columns of every read of the online store, in order."""
    from features.store.feature_store import FeatureStore

    columns: list[tuple[str, ...]] = []
    online_features = FeatureStore.online_features

    def record(store: FeatureStore, service: str, keys: Any, written: Any = None) -> pd.DataFrame:
        columns.append(tuple(store.feature_names(service)))
        return online_features(store, service, keys, written)

    monkeypatch.setattr(FeatureStore, "online_features", record)
    return columns


def test_a_rescore_reads_each_column_set_once(api: Any, reads: list[tuple[str, ...]]) -> None:
    from customers.people import lookup
    from serving import runtime
    from serving.scoring import online

    online.rescore_customers(runtime.open_runtime(api.shop), [*lookup.find_keys(api.shop, ["c000"]).values()])
    assert reads
    assert len(reads) == len(set(reads))


def test_the_customer_page_reads_each_column_set_once(api: Any, reads: list[tuple[str, ...]]) -> None:
    form = {"key": api.keys["agent"], "to": "/"}
    signed_in = api.client.post(
        "/sign-in", data=form, headers={"Sec-Fetch-Site": "same-origin"}, follow_redirects=False
    )
    cookie = "; ".join(f"{name}={value}" for name, value in signed_in.cookies.items())
    api.client.cookies.clear()
    reads.clear()
    page = api.client.get("/customers/c000", headers={"Cookie": cookie}, follow_redirects=False)
    assert page.status_code == 200
    assert reads
    assert len(reads) == len(set(reads))


def test_category_history_is_the_same_alone_and_out_of_all(api: Any) -> None:
    from customers.people import lookup
    from serving import runtime
    from serving.scoring.inputs import OnlineInputs

    keys = [*lookup.find_keys(api.shop, ["c000", "c001", "c002"]).values()]
    alone, shared = (OnlineInputs(runtime.open_runtime(api.shop), keys) for _ in range(2))
    shared.load_features("restock")
    pd.testing.assert_frame_equal(alone.load_category_history([2, 0]), shared.load_category_history([2, 0]))


def test_basket_values_follow_the_customers_and_are_unknown_for_others(api: Any) -> None:
    from customers.people import lookup
    from serving import runtime
    from serving.scoring.inputs import OnlineInputs

    keys = [*lookup.find_keys(api.shop, ["c000", "c001"]).values()]
    server_runtime = runtime.open_runtime(api.shop)
    inputs = OnlineInputs(server_runtime, keys)
    values = inputs.load_basket_values([keys[1], 10**9, keys[0], runtime.UNKNOWN_CUSTOMER])
    expected = server_runtime.load_basket_values([keys[1], keys[0]])
    np.testing.assert_array_equal(values, [expected[0], np.nan, expected[1], np.nan])


def test_a_night_without_a_value_model_takes_the_stored_spend(isolated_api: Any) -> None:
    """Unless it is of a later day: a historical run must not use what was predicted later."""
    from datetime import timedelta

    from customers.people import lookup
    from customers.scores import score_store
    from serving import runtime
    from serving.scoring.inputs import NightlyInputs, NightlyRun

    server_runtime = runtime.open_runtime(isolated_api.shop)
    server_runtime.features.apply()
    as_of, shop = server_runtime.now(), server_runtime.shop
    key, other_key = lookup.find_keys(shop, ["c000", "c001"]).values()
    run = score_store.begin_run(shop, "value", "1", as_of)
    score_store.write_scores(shop, run, [(key, 12.5, '{"horizon_days":90,"fallback":false}')])
    score_store.finish_run(shop, run)
    entities = pd.DataFrame({"customer_key": [other_key, key], "event_timestamp": [as_of] * 2})
    for night_as_of, expected in ((as_of, [np.nan, 12.5]), (as_of - timedelta(days=7), [np.nan, np.nan])):
        inputs = NightlyInputs(NightlyRun(shop, server_runtime.features, {}, night_as_of, ()), entities)
        np.testing.assert_array_equal(inputs.load_stored_spend(), expected)
        with pytest.raises(LookupError, match="there is no value model"):
            inputs.get_model("value")
