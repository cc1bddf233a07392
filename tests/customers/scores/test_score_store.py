"""Scores are stored once, become visible as a whole run, and are exported in fixed columns."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pandas as pd
import pytest

from customers.catalogue import products as catalogue_products
from customers.loading.load import LoadResult
from customers.parquet import mirror
from customers.people import lookup
from customers.privacy import consents
from customers.reports import at_risk, exports
from customers.scores import promotion_log, score_store
from customers.security import api_keys
from customers.shop import timestamps
from customers.shop.errors import ShopError
from customers.shop.settings import Shop

AS_OF = datetime(2017, 12, 1, tzinfo=UTC)
Load = Callable[..., LoadResult]
Rows = Callable[..., list[tuple]]


@pytest.fixture
def three_customers(corner_shop: Shop, load_lines: Load) -> tuple[Shop, dict[str, int]]:
    load_lines(
        corner_shop,
        "1,anna,bread,2017-11-01T10:00Z,1,2.50\n2,anna,milk,2017-11-08T10:00Z,1,1\n"
        "3,anna,milk,2017-11-15T10:00Z,1,1\n4,ben,milk,2017-11-20T10:00Z,1,1\n5,cora,tea,2017-11-30T10:00Z,1,9\n",
    )
    return corner_shop, lookup.find_keys(corner_shop, ["anna", "ben", "cora"])


def store_run(where: Shop, model: str, rows: dict[int, float], details: dict[int, dict], version: int = 1) -> int:
    run = score_store.begin_run(where, model, version, AS_OF)
    score_store.write_scores(where, run, [(key, value, json.dumps(details[key])) for key, value in rows.items()])
    score_store.finish_run(where, run)
    return run


def test_a_run_appears_whole_or_not_at_all(three_customers: tuple[Shop, dict[str, int]]) -> None:
    where, keys = three_customers
    run = score_store.begin_run(where, "churn", 1, AS_OF)
    score_store.write_scores(where, run, [(keys["anna"], 0.5, "{}")])
    assert score_store.load_run_scores(where, "churn").empty
    assert score_store.newest_run(where, "churn") is None
    assert score_store.load_customer_scores(where, keys["anna"])["churn"].value == 0.5
    score_store.finish_run(where, run)
    assert score_store.load_run_scores(where, "churn")["value"].tolist() == [0.5]


def test_recording_again_leaves_one_row(three_customers: tuple[Shop, dict[str, int]], fetch_rows: Rows) -> None:
    where, keys = three_customers
    for _ in range(10):
        run = score_store.begin_run(where, "churn", "1", AS_OF)
        score_store.write_scores(where, run, [(keys["anna"], 0.5, '{"band": "low"}')])
        assert (
            score_store.write_online_scores(where, "churn", "1", AS_OF, [(keys["anna"], 0.5, '{"band": "low"}')]) == 0
        )
    assert fetch_rows(where, "select count(*) from scores") == [(1,)]
    stored = score_store.load_customer_scores(where, keys["anna"])["churn"]
    assert (stored.version, stored.as_of, stored.detail) == ("1", AS_OF, '{"band": "low"}')


def test_the_newest_moment_is_the_latest_word(three_customers: tuple[Shop, dict[str, int]]) -> None:
    where, keys = three_customers
    score_store.write_online_scores(where, "churn", 2, AS_OF + timedelta(days=1), [(keys["anna"], 0.9, "{}")])
    store_run(where, "churn", {keys["anna"]: 0.1}, {keys["anna"]: {}})
    assert score_store.load_customer_scores(where, keys["anna"])["churn"].value == 0.9
    assert score_store.load_run_scores(where, "churn")["value"].tolist() == [0.1]


def test_of_one_moment_the_last_word_is_shown(three_customers: tuple[Shop, dict[str, int]], fetch_rows: Rows) -> None:
    """The night's version 7 gives way to version 3 between two nights, and comes back: every change is stored."""
    where, keys = three_customers
    store_run(where, "churn", {keys["anna"]: 0.1, keys["ben"]: 0.2}, {key: {} for key in keys.values()}, version=7)
    for version, value in ((3, 0.3), (7, 0.1), (3, 0.3)):
        word = [(keys["anna"], value, "{}")]
        assert [score_store.write_online_scores(where, "churn", version, AS_OF, word) for _ in range(3)] == [1, 0, 0]
        stored = score_store.load_customer_scores(where, keys["anna"])["churn"]
        assert (stored.version, stored.value) == (str(version), value)
    assert score_store.load_customer_scores(where, keys["ben"])["churn"].version == "7"
    assert score_store.load_run_scores(where, "churn")["value"].tolist() == [0.1, 0.2]
    assert fetch_rows(where, "select count(*) from scores") == [(2 + 1,)]


def test_an_old_replay_does_not_become_current(three_customers: tuple[Shop, dict[str, int]]) -> None:
    where, keys = three_customers
    store_run(where, "churn", {keys["anna"]: 0.1}, {keys["anna"]: {}})
    old = score_store.begin_run(where, "churn", 3, AS_OF - timedelta(days=30))
    score_store.write_scores(where, old, [(keys["anna"], 0.7, "{}")])
    score_store.finish_run(where, old)
    assert score_store.load_run_scores(where, "churn")["value"].tolist() == [0.1]
    assert score_store.load_customer_scores(where, keys["anna"])["churn"].value == 0.1
    assert score_store.load_run_scores(where, "churn", AS_OF - timedelta(days=30))["value"].tolist() == [0.7]


def test_a_number_that_is_none_is_nothing(three_customers: tuple[Shop, dict[str, int]]) -> None:
    where, keys = three_customers
    nothing = [(keys["anna"], float("nan"), "{}")]
    assert [score_store.write_online_scores(where, "timing", 1, AS_OF, nothing) for _ in range(2)] == [1, 0]
    assert score_store.load_customer_scores(where, keys["anna"])["timing"].value is None


def test_of_who_does_not_allow_it_nothing_is_kept_or_shown(
    three_customers: tuple[Shop, dict[str, int]], fetch_rows: Rows
) -> None:
    where, keys = three_customers
    store_run(where, "churn", {keys["anna"]: 0.1}, {keys["anna"]: {}})
    denying = replace(where, consent_default={**where.consent_default, "profiling": "denied"})
    assert consents.allowed_customers(where, keys.values(), "profiling") == set(keys.values())
    assert consents.allowed_customers(denying, keys.values(), "profiling") == set()
    run = score_store.begin_run(denying, "churn", 2, AS_OF)
    assert score_store.write_scores(denying, run, [(keys["ben"], 0.2, "{}")]) == 0
    assert score_store.write_online_scores(denying, "churn", 2, AS_OF, [(keys["ben"], 0.2, "{}")]) == 0
    assert fetch_rows(where, "select count(*) from scores") == [(1,)]
    assert score_store.load_customer_scores(denying, keys["anna"]) == {}
    assert score_store.load_run_scores(denying, "churn").empty
    assert exports.build_scores(denying).empty


def test_only_a_run_that_began_has_scores(three_customers: tuple[Shop, dict[str, int]], fetch_rows: Rows) -> None:
    shop, keys = three_customers
    with pytest.raises(ShopError, match="begin one first"):
        score_store.write_scores(shop, 4711, [(keys["anna"], 0.5, "{}")])
    assert fetch_rows(shop, "select * from scores") == []


def test_only_a_run_that_began_can_finish(corner_shop: Shop) -> None:
    with pytest.raises(ShopError, match="begin one first"):
        score_store.finish_run(corner_shop, 42)


def test_an_empty_shop_exports_every_promised_column(corner_shop: Shop) -> None:
    for name in exports.TABLES:
        assert exports.build_table(corner_shop, name).empty
    assert list(exports.build_table(corner_shop, "at-risk")) == list(at_risk.AT_RISK_COLUMNS)
    with pytest.raises(ShopError, match="unknown table"):
        exports.build_table(corner_shop, "secrets")


def test_the_tables_show_the_stored_scores(three_customers: tuple[Shop, dict[str, int]]) -> None:
    where, keys = three_customers
    mirror.refresh(where)
    bands = {keys["anna"]: "high", keys["ben"]: "medium", keys["cora"]: "low"}
    values = {keys["anna"]: 0.9, keys["ben"]: 0.5, keys["cora"]: 0.1}
    churn = {
        key: {"horizon_days": 28, "band": band, "reasons": ["overdue"], "rfm": "123"} for key, band in bands.items()
    }
    store_run(where, "churn", values, churn, version=4)
    when = {
        "p": {"7": 0.1, "14": 0.2, "28": 0.5, "90": 0.9},
        "days": {"p10": 2, "p50": 10, "p90": None},
        "cdf": [0.01, 0.02],
        "fallback": False,
    }
    store_run(where, "timing", values, dict.fromkeys(values, when), version=5)
    products = catalogue_products.find_keys(where, ["milk", "tea"])
    lists = {"any": [[products["milk"], 0.7, "again"], [products["tea"], 0.2, "new"]], "again": [], "new": []}
    store_run(where, "recommender", values, dict.fromkeys(values, lists), version=6)

    table = exports.build_scores(where).set_index("customer_id")
    assert table.loc["anna", "churn_probability"] == 0.9
    assert table.loc["ben", "churn_band"] == "medium"
    assert table.loc["cora", ["p_purchase_28d", "next_purchase_days_p50", "churn_horizon_days"]].tolist() == [
        0.5,
        10,
        28,
    ]
    assert table.loc["cora", ["churn_version", "timing_version", "recommender_version"]].tolist() == ["4", "5", "6"]
    assert pd.isna(table.loc["cora", "next_purchase_days_p90"])
    assert exports.build_timing(where)["cdf"].tolist() == [[0.01, 0.02]] * 3
    first = exports.build_recommendations(where).iloc[:2]
    assert first[["customer_id", "list", "rank", "product_id"]].values.tolist() == [
        ["anna", "any", 1, "milk"],
        ["anna", "any", 2, "tea"],
    ]
    risky = at_risk.list_at_risk(where)
    assert risky["customer_id"].tolist() == ["anna", "ben"]
    # Anna came every 7 days, last on the 15th: on the 1st, 16 days later, she is 9 days late.
    assert risky["days_overdue"].tolist()[0] == 16 - 7
    # That was years ago; on the day itself she was expected by the end of the tenth day, in Berlin.
    assert risky["expected_next_purchase_at"].min() > AS_OF + timedelta(days=365)
    then = at_risk.list_at_risk(where, as_of=AS_OF)["expected_next_purchase_at"]
    assert then.tolist()[0] == timestamps.day_start(date(2017, 12, 1 + 10), where.zone)
    assert at_risk.list_at_risk(where, n=1)["customer_id"].tolist() == ["anna"]


def test_the_table_of_customers_counts_what_they_bought(
    three_customers: tuple[Shop, dict[str, int]], load_text: Load
) -> None:
    where, _ = three_customers
    load_text(where, "customers", "customer_id,given_name,age_band\nanna,Anna,25-34\ndora,Dora,\n")
    table = exports.build_customers(where).set_index("customer_id")
    assert table.loc["anna", ["stage", "orders", "spent", "age_band"]].tolist() == ["customer", 3, 4.5, "25-34"]
    assert table.loc["dora", ["stage", "orders", "spent"]].tolist() == ["prospect", 0, 0]
    assert "given_name" not in table


def test_the_log_of_champions_is_only_added_to(corner_shop: Shop) -> None:
    promotion_log.append_promotion(
        corner_shop, name="churn", version=1, previous=None, action="promoted", why="the first"
    )
    promotion_log.append_promotion(
        corner_shop, name="churn", version=2, previous=1, action="kept back", why="worse", metrics={"auc": 0.7}
    )
    promotion_log.append_promotion(
        corner_shop, name="timing", version=1, previous=None, action="promoted", why="the first"
    )
    log = promotion_log.load_history(corner_shop, "churn")
    assert [(entry.version, entry.previous, entry.action) for entry in log] == [
        ("1", None, "promoted"),
        ("2", "1", "kept back"),
    ]
    assert log[1].metrics == {"auc": 0.7}
    assert len(promotion_log.load_history(corner_shop)) == 3


def test_a_key_opens_its_role_and_is_not_kept(corner_shop: Shop, fetch_rows: Rows) -> None:
    key = api_keys.create_key(corner_shop, "analyst")
    assert api_keys.role_for_key(corner_shop, key) == "analyst"
    assert all(key.split("_", 2)[2] not in str(row) for row in fetch_rows(corner_shop, "select * from api_keys"))
    for wrong in (key[:-1], key + "x", "", "rg__", "Bearer", key.replace("rg", "xx"), "rg_\ud800_x"):
        assert api_keys.role_for_key(corner_shop, wrong) is None
    with pytest.raises(ShopError, match="unknown role"):
        api_keys.create_key(corner_shop, "owner")
