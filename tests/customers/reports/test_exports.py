"""Exported tables and the at-risk list: their rows and columns, and nothing sensitive without consent."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from customers.catalogue import products as catalogue_products
from customers.database import engine
from customers.ledger import watermark
from customers.loading import load
from customers.loading.load import LoadResult
from customers.marketing import offers
from customers.parquet import mirror
from customers.people import lookup
from customers.reports import at_risk, exports
from customers.scores import score_store, uplift_result
from customers.shop import timestamps
from customers.shop.errors import ShopError
from customers.shop.settings import Shop

Load = Callable[..., LoadResult]
Copy = Callable[[Path, Path], Shop]

AS_OF = datetime(2017, 12, 1, tzinfo=UTC)
PRODUCTS = "product_id,name,category,sensitive\nbread,Bread,food,\nmilk,Milk,food,\npills,Pills,health,yes\n"
OFFERS = (
    "offer_id,campaign_id,starts_at,ends_at,channels,product_ids\n"
    "past,c0,2017-10-01,2017-11-01,,bread\n"
    "loaf,c1,2017-11-01,2018-01-01,email,bread\n"
    "cream,c1,2017-11-01,2018-02-01,,milk\n"
    "cure,c2,2017-11-01,2018-01-01,,pills\n"
)
CONSENTS = (
    "customer_id,purpose,state,at\nben,profiling_sensitive,granted,2017-01-01\nben,marketing_email,granted,2017-01-01\n"
)


@dataclass(frozen=True)
class Scored:
    """A shop with stored scores of Anna and Ben."""

    shop: Shop
    keys: dict[str, int]
    offers: dict[str, int]

    def write_run(
        self, model: str, scores: dict[str, tuple[float | None, dict[str, Any]]], as_of: datetime = AS_OF
    ) -> None:
        run = score_store.begin_run(self.shop, model, 1, as_of)
        rows = [(self.keys[name], value, json.dumps(detail)) for name, (value, detail) in scores.items()]
        score_store.write_scores(self.shop, run, rows)
        score_store.finish_run(self.shop, run)

    def write_online(self, model: str, name: str, value: float, detail: dict[str, Any], as_of: datetime) -> None:
        score_store.write_online_scores(self.shop, model, 1, as_of, [(self.keys[name], value, json.dumps(detail))])


@pytest.fixture(scope="session")
def scored_home(
    copy_shop: Copy, new_home: Path, tmp_path_factory: pytest.TempPathFactory, load_text: Load, load_lines: Load
) -> Path:
    """As of 1 December both are at risk; Anna has bought bread every week."""
    shop = copy_shop(new_home, tmp_path_factory.mktemp("scored") / "shop")
    load_text(shop, "products", PRODUCTS)
    load_text(shop, "offers", OFFERS)
    load_lines(
        shop,
        "".join(f"{day},anna,bread,2017-11-{day:02d}T10:00Z,1,2\n" for day in (1, 8, 15))
        + "30,ben,pills,2017-11-20T10:00Z,1,9\n",
    )
    load_text(shop, "consents", CONSENTS)
    mirror.refresh(shop)
    write_all_scores(open_scored(shop))
    return shop.home


@pytest.fixture
def scored(copy_shop: Copy, scored_home: Path, tmp_path: Path) -> Iterator[Scored]:
    """A copy of the shop with scores."""
    shop = copy_shop(scored_home, tmp_path / "shop")
    yield open_scored(shop)
    engine.get_engine(shop).dispose()


def open_scored(shop: Shop) -> Scored:
    catalogue = offers.load_catalogue(shop).offers
    offer_keys = dict(zip(catalogue["offer_id"], catalogue["offer_key"].tolist(), strict=True))
    return Scored(shop, lookup.find_keys(shop, ["anna", "ben"]), offer_keys)


def write_all_scores(scored: Scored) -> None:
    """Scores of both customers, of the nightly run of 1 December."""
    scored.write_run(
        "churn",
        {"anna": (0.9, {"band": "high", "horizon_days": 28}), "ben": (0.5, {"band": "medium", "horizon_days": 28})},
    )
    items = [
        [scored.offers[name], p, gain, f"why {name}"]
        for name, p, gain in (("cure", 0.4, 1.5), ("past", 0.3, None), ("loaf", 0.2, 0.25), ("cream", 0.1, None))
    ]
    scored.write_run("offers", dict.fromkeys(scored.keys, (0.4, {"items": items, "fallback": False})))
    scored.write_run(
        "value",
        {"anna": (12.344, {"horizon_days": 90, "fallback": False}), "ben": (30.0, {"horizon_days": 90, "fallback": 1})},
    )
    categories = [["health", 0.5, 0.6, 0.7, 3], ["food", 0.1, 0.2, 0.3, None]]
    scored.write_run("restock", dict.fromkeys(scored.keys, (0.6, {"items": categories, "fallback": False})))
    return_times = {
        "p": {"7": 0.1, "14": 0.2, "28": 0.5, "90": 0.9},
        "days": {"p10": 2, "p50": 10, "p90": None},
        "cdf": [0.1],
    }
    scored.write_run("timing", dict.fromkeys(scored.keys, (10.0, return_times)))


def test_offers_are_ranked_and_dated(scored: Scored) -> None:
    table = exports.build_table(scored.shop, "offers", as_of=AS_OF)
    ben = table[table["customer_id"] == "ben"]
    assert ben[["rank", "offer_id", "campaign_id", "score", "reason"]].values.tolist() == [
        [1, "cure", "c2", 0.4, "why cure"],
        [2, "loaf", "c1", 0.2, "why loaf"],
        [3, "cream", "c1", 0.1, "why cream"],
    ]
    assert ben["expected_gain"].fillna(-1).tolist() == [1.5, 0.25, -1]
    assert ben["expires_at"].tolist()[2] == timestamps.day_start(date(2018, 2, 1), scored.shop.zone)


def test_nothing_sensitive_is_listed_without_consent(scored: Scored) -> None:
    """Ben consents, Anna does not; her ranks have no gap that would show that something was left out."""
    table = exports.build_offers(scored.shop, as_of=AS_OF)
    assert table.loc[table["customer_id"] == "anna", ["rank", "offer_id"]].values.tolist() == [[1, "cream"]]
    restock = exports.build_restock(scored.shop, as_of=AS_OF)
    assert restock[["customer_id", "category"]].values.tolist() == [
        ["anna", "food"],
        ["ben", "health"],
        ["ben", "food"],
    ]
    products = catalogue_products.find_keys(scored.shop, ["pills", "milk"])
    best = [[products["pills"], 0.7, "new"], [products["milk"], 0.2, "new"]]
    scored.write_run("recommender", dict.fromkeys(scored.keys, (0.7, {"any": best, "again": [], "new": []})))
    listed = exports.build_recommendations(scored.shop)
    assert listed[["customer_id", "rank", "product_id"]].values.tolist() == [
        ["anna", 1, "milk"],
        ["ben", 1, "pills"],
        ["ben", 2, "milk"],
    ]


def test_an_offer_reason_names_no_sensitive_purchase_without_consent(scored: Scored) -> None:
    pills = catalogue_products.find_keys(scored.shop, ["pills"])["pills"]
    items = [[scored.offers["cream"], 0.4, None, [pills, 2]]]
    scored.write_run("offers", dict.fromkeys(scored.keys, (0.4, {"items": items, "fallback": False})))
    table = exports.build_offers(scored.shop, as_of=AS_OF)
    assert table[["customer_id", "reason"]].values.tolist() == [
        ["anna", "it is for something that they have not bought yet"],
        ["ben", "goes with Pills, bought 2 days ago"],
    ]


def test_a_restock_is_expected_by_the_end_of_its_day(scored: Scored) -> None:
    restock = exports.build_table(scored.shop, "restock", as_of=AS_OF)
    health = restock[restock["category"] == "health"].iloc[0]
    assert health[["p_7d", "p_14d", "p_28d"]].tolist() == [0.5, 0.6, 0.7]
    assert health["expected_at"] == timestamps.day_start(date(2017, 12, 1 + 3), scored.shop.zone)
    assert restock.loc[restock["category"] == "food", "expected_at"].isna().all()


def test_the_scores_table_has_the_expected_value_and_the_model_versions(scored: Scored) -> None:
    table = exports.build_scores(scored.shop).set_index("customer_id")
    assert table["expected_value"].to_dict() == {"anna": 12.344, "ben": 30.0}
    assert table["value_horizon_days"].tolist() == [90, 90]
    assert table["fallback"].to_dict() == {"anna": False, "ben": True}
    assert table.loc["anna", ["offers_version", "restock_version", "value_version"]].tolist() == ["1", "1", "1"]
    assert table["recommender_version"].isna().all()


def test_the_at_risk_list_has_value_complaints_channels_and_an_offer(scored: Scored, load_text: Load) -> None:
    load_text(
        scored.shop,
        "interactions",
        "interaction_id,customer_id,happened_at,kind,status\n"
        "1,ben,2017-11-21T10:00Z,complaint,open\n2,ben,2017-11-22T10:00Z,complaint,\n"
        "3,ben,2017-11-22T10:00Z,complaint,closed\n",
    )
    table = exports.build_table(scored.shop, "at-risk", as_of=AS_OF).set_index("customer_id")
    assert table.index.tolist() == ["anna", "ben"]
    assert table["value_at_risk"].to_dict() == {"anna": round(12.344 * 0.9, 2), "ben": 30.0 * 0.5}
    assert table["open_complaints"].to_dict() == {"anna": 0, "ben": 2}
    assert table["contactable"].to_dict() == {"anna": [], "ben": ["email"]}
    # Nothing sensitive for Anna, nothing that has ended, and nothing that only an e-mail could bring.
    assert table["suggested_offer_id"].to_dict() == {"anna": "cream", "ben": "cure"}
    # Every 7 days, the last on the 15th: on the 1st, 16 days later, she is 9 days late. Ben has come once.
    assert table.loc["anna", "days_overdue"] == 16 - 7
    assert pd.isna(table.loc["ben", "days_overdue"])


def test_an_offer_that_was_redeemed_is_not_suggested_again(scored: Scored, load_text: Load) -> None:
    load_text(
        scored.shop,
        "interactions",
        "interaction_id,customer_id,happened_at,kind,offer_id\n1,ben,2017-11-21T10:00Z,redeemed,cure\n",
    )
    table = at_risk.list_at_risk(scored.shop, as_of=AS_OF).set_index("customer_id")
    assert table["suggested_offer_id"].to_dict() == {"anna": "cream", "ben": "loaf"}
    # A historical run of the days before does not have it.
    scored.write_run("churn", {"ben": (0.5, {"band": "medium"})}, datetime(2017, 11, 21, tzinfo=UTC))
    scored.write_run(
        "offers",
        {"ben": (0.4, {"items": [[scored.offers["cure"], 0.4, None, ""]]})},
        datetime(2017, 11, 21, tzinfo=UTC),
    )
    before = at_risk.list_at_risk(scored.shop, as_of=datetime(2017, 11, 21, tzinfo=UTC))
    assert before["suggested_offer_id"].tolist() == ["cure"]


def test_complaints_after_the_day_of_the_list_are_not_on_it(scored: Scored, load_text: Load) -> None:
    lines = "1,ben,2017-11-20T10:00Z,complaint\n2,ben,2017-11-22T10:00Z,complaint\n"
    load_text(scored.shop, "interactions", "interaction_id,customer_id,happened_at,kind\n" + lines)
    then = datetime(2017, 11, 21, tzinfo=UTC)
    scored.write_run("churn", {"ben": (0.5, {"band": "medium"})}, then)
    assert at_risk.list_at_risk(scored.shop, as_of=then)["open_complaints"].tolist() == [1]
    assert at_risk.list_at_risk(scored.shop).set_index("customer_id").loc["ben", "open_complaints"] == 1 + 1


def test_only_days_on_which_something_was_paid_are_visits(scored: Scored, load_lines: Load) -> None:
    """Bought and brought back on the 22nd, given away on the 25th; in francs on the 29th, so the amount is unknown.

    Every 7 days until the 15th, then after 14: the usual gap is 7, and on the 1st the last visit is 2 days ago.
    """
    lines = "40,anna,milk,2017-11-22T10:00Z,1,2\n41,anna,milk,2017-11-22T11:00Z,-1,-2\n"
    load_lines(scored.shop, lines + "42,anna,milk,2017-11-25T10:00Z,1,0\n")
    mirror.refresh(scored.shop)
    table = at_risk.list_at_risk(scored.shop, as_of=AS_OF).set_index("customer_id")
    assert table.loc["anna", "last_purchase_at"] == datetime(2017, 11, 15, 10, tzinfo=UTC)
    assert table.loc["anna", "days_overdue"] == 16 - 7
    francs = {"order_id": "43", "customer_id": "anna", "product_id": "milk", "sold_at": "2017-11-29T10:00Z",
              "quantity": 1, "amount": 2, "currency": "CHF"}  # fmt: skip
    load.ingest_records(scored.shop, "transactions", [francs])
    mirror.refresh(scored.shop)
    table = at_risk.list_at_risk(scored.shop, as_of=AS_OF).set_index("customer_id")
    assert table.loc["anna", "last_purchase_at"] == datetime(2017, 11, 29, 10, tzinfo=UTC)
    assert table.loc["anna", "days_overdue"] == 0


def test_sensitive_purchases_are_no_visits_without_consent(scored: Scored, load_lines: Load, load_text: Load) -> None:
    """Both bought pills since; Ben consents until he revokes it. A list with online scores follows the same rule."""
    load_lines(scored.shop, "40,anna,pills,2017-11-28T10:00Z,1,9\n41,ben,pills,2017-11-28T10:00Z,1,9\n")
    mirror.refresh(scored.shop)
    for name in ("anna", "ben"):
        scored.write_online("churn", name, 0.9, {"band": "high"}, AS_OF + timedelta(days=1))

    def last_purchase_days(**options: Any) -> dict[str, Any]:
        table = at_risk.list_at_risk(scored.shop, **options).set_index("customer_id")
        return {name: None if pd.isna(at) else at.day for name, at in table["last_purchase_at"].items()}

    assert last_purchase_days(as_of=AS_OF) == last_purchase_days(include_online=True) == {"anna": 15, "ben": 28}
    load_text(scored.shop, "consents", "customer_id,purpose,state,at\nben,profiling_sensitive,revoked,2017-11-30\n")
    assert last_purchase_days(as_of=AS_OF) == last_purchase_days(include_online=True) == {"anna": 15, "ben": None}


def test_the_list_has_a_minimum_value_and_refuses_an_unknown_segment(scored: Scored) -> None:
    assert at_risk.list_at_risk(scored.shop, min_value=12)["customer_id"].tolist() == ["ben"]
    assert at_risk.list_at_risk(scored.shop, min_value=11, n=1)["customer_id"].tolist() == ["anna"]
    assert at_risk.list_at_risk(scored.shop, min_value=99).empty
    with pytest.raises(ShopError, match="no segment 'gold'"):
        at_risk.list_at_risk(scored.shop, segment="gold")


def test_the_list_is_ordered_by_probability_value_at_risk_or_saved_value(scored: Scored) -> None:
    """Contact has more effect on Ben; it saves what a customer spends if they return, not their expected value."""

    def listed(order: str) -> list[str]:
        return at_risk.list_at_risk(scored.shop, order=order)["customer_id"].tolist()

    assert listed("probability") == ["anna", "ben"]
    assert listed("value_at_risk") == ["ben", "anna"]
    assert listed("saved_value") == ["anna", "ben"]  # no saved value yet: ordered as by probability
    assert at_risk.list_at_risk(scored.shop)["saved_value"].isna().all()
    result = uplift_result.UpliftResult(AS_OF.isoformat(), uplift_result.EVIDENCE, "it was found", "return", 28, "1")
    uplift_result.save_result(scored.shop, result)
    assert uplift_result.unavailable_reason(scored.shop) == uplift_result.NOT_SCORED
    detail_of_uplift = {"outcome": "return", "days": 28}
    scored.write_run(uplift_result.MODEL, {"anna": (0.01, detail_of_uplift), "ben": (0.05, detail_of_uplift)})
    assert uplift_result.unavailable_reason(scored.shop) is None
    assert listed("saved_value") == ["ben", "anna"]
    saved = at_risk.list_at_risk(scored.shop).set_index("customer_id")["saved_value"]
    assert saved.to_dict() == {"anna": round(0.01 * 12.344 / 0.1, 2), "ben": 0.05 * 30.0 / 0.5}
    with pytest.raises(ShopError, match="take one of probability, value_at_risk, saved_value"):
        listed("beauty")


def test_the_saved_value_follows_the_outcome_of_each_score(scored: Scored) -> None:
    """The probability of a return is taken as 1 in 20 at least; a score without an outcome has no saved value."""
    result = uplift_result.UpliftResult(AS_OF.isoformat(), uplift_result.EVIDENCE, "it was found", "return", 28, "1")
    uplift_result.save_result(scored.shop, result)
    value, churn = pd.Series([40.0, 40.0]), pd.Series([0.999, 0.5])
    for anna, ben, saved in (
        ("return", "spend", [0.1 * 40 / 0.05, 0.2]),
        ("spend", "return", [0.1, 0.2 * 40 / 0.5]),
        (None, "return", [math.nan, 16.0]),
    ):
        scored.write_run(uplift_result.MODEL, {"anna": (0.1, {"outcome": anna}), "ben": (0.2, {"outcome": ben})})
        keys = pd.Series([scored.keys["anna"], scored.keys["ben"]])
        assert uplift_result.estimate_saved_value(scored.shop, keys, value, churn).tolist() == pytest.approx(
            saved, nan_ok=True
        )


def test_a_category_that_has_become_sensitive_is_named_in_no_reason(scored: Scored) -> None:
    why = ["no longer buys health, last bought 40 days ago", "no longer buys food, last bought 40 days ago"]
    scored.write_run("churn", {"anna": (0.9, {"band": "high", "reasons": why, "weights": [0.4, 0.3]})})
    assert at_risk.list_at_risk(scored.shop, as_of=AS_OF)["reasons"].tolist() == [why[1:], []]


def test_a_sale_posted_since_the_nightly_run_changes_the_list(scored: Scored) -> None:
    """The mirror does not have it yet: the last purchase and the days overdue come from the ledger itself."""
    sale = {"order_id": "31", "customer_id": "anna", "product_id": "milk", "sold_at": "2017-12-01T09:00Z",
            "quantity": 1, "amount": 2}  # fmt: skip
    load.ingest_records(scored.shop, "transactions", [sale])
    later = datetime(2017, 12, 2, tzinfo=UTC)
    scored.write_online("churn", "anna", 0.4, {"band": "medium", "reasons": ["was here"]}, later)
    scored.write_online("timing", "anna", 5, {"days": {"p50": 5}}, later)
    scored.write_online("value", "anna", 20.0, {"horizon_days": 90}, later)

    online_list = at_risk.list_at_risk(scored.shop, include_online=True).set_index("customer_id")
    assert online_list.index.tolist() == ["ben", "anna"]
    assert online_list["as_of"].to_dict() == {"ben": AS_OF, "anna": later}
    assert online_list.loc["anna", "value_at_risk"] == 20.0 * 0.4
    assert online_list.loc["anna", "last_purchase_at"] == datetime(2017, 12, 1, 9, tzinfo=UTC)
    # Gaps of 7, 7 and 16 days, and a purchase yesterday.
    assert online_list.loc["anna", "days_overdue"] == 0
    assert online_list.loc["ben", "last_purchase_at"] == datetime(2017, 11, 20, 10, tzinfo=UTC)
    # Scores of the nightly run stay: its tables and its list do not change.
    assert at_risk.list_at_risk(scored.shop)["customer_id"].tolist() == ["anna", "ben"]


def test_the_latest_scores_leave_out_an_unfinished_run(scored: Scored) -> None:
    def latest_values() -> dict[int, float]:
        frame = score_store.load_latest_scores(scored.shop, "churn")
        return dict(zip(frame["customer_key"], frame["value"], strict=True))

    anna, ben = scored.keys["anna"], scored.keys["ben"]
    scored.write_online("churn", "anna", 0.8, {}, AS_OF)
    assert latest_values() == {anna: 0.8, ben: 0.5}
    tomorrow = AS_OF + timedelta(days=1)
    scored.write_online("churn", "anna", 0.7, {}, tomorrow)
    watermark.record_run_start(scored.shop, tomorrow)
    run = score_store.begin_run(scored.shop, "churn", 1, tomorrow)
    score_store.write_scores(scored.shop, run, [(ben, 0.3, "{}")])
    assert latest_values() == {anna: 0.7, ben: 0.5}
    score_store.write_scores(scored.shop, run, [(anna, 0.2, "{}")])
    score_store.finish_run(scored.shop, run)
    assert latest_values() == {anna: 0.2, ben: 0.3}
    assert score_store.load_latest_scores(scored.shop, "nothing").empty


def test_a_customer_who_revokes_profiling_leaves_every_table(scored: Scored, load_text: Load) -> None:
    load_text(scored.shop, "consents", "customer_id,purpose,state,at\nanna,profiling,revoked,2017-11-30\n")
    for name in ("scores", "timing", "offers", "restock", "at-risk"):
        assert set(exports.build_table(scored.shop, name, as_of=AS_OF)["customer_id"]) == {"ben"}
    assert score_store.load_latest_scores(scored.shop, "churn")["customer_key"].tolist() == [scored.keys["ben"]]


def test_a_shop_without_scores_has_the_same_columns(scored: Scored) -> None:
    for name in ("scores", "offers", "restock", "at-risk"):
        full = exports.build_table(scored.shop, name)
        none = exports.build_table(scored.shop, name, as_of=AS_OF - timedelta(days=400))
        assert none.empty
        assert list(none) == list(full)
        assert none.dtypes.tolist() == full.dtypes.tolist()
