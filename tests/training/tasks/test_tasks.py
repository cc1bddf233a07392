"""The tasks value, restock and offers on a small shop, and the metrics of the recommender task."""

from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest

from training import calendar, train
from training.tasks import all_tasks
from training.tasks.task import Task, TrainingData

CALENDAR = calendar.TrainingCalendar(date(2024, 1, 1), datetime(2025, 1, 1, tzinfo=UTC), "UTC")
EMPTY = pd.DataFrame({"customer_key": np.empty(0, np.int64), "day": pd.to_datetime([]), "spend": []})
TRAINING_DATA = TrainingData(CALENDAR, EMPTY, {}, 28)


def test_the_recommender_task_reports_the_sources_of_list_positions() -> None:
    rows = pd.DataFrame({"customer_key": [1], "product_keys": [[10, 11]]})
    positions = [("any", 1, 10, "again"), ("any", 2, 11, "again"), ("any", 3, 12, "new"), ("new", 1, 12, "popular")]
    ranked = pd.DataFrame(positions, columns=["list", "rank", "product_key", "source"]).assign(customer_key=1)
    metrics = get_task("recommender").evaluate(TRAINING_DATA, rows, pd.Series([[10, 12]]), ranked)
    shares = {name: share for name, share in metrics.items() if name.startswith("source_")}
    assert shares == {"source_again": pytest.approx(2 / 3), "source_new": pytest.approx(1 / 3), "source_popular": 0}


def mailings(households: int, *, seed: int = 5) -> tuple[TrainingData, pd.DataFrame]:
    """A campaign of 20 offers to all households every four weeks; offers of high affinity are redeemed in a week."""
    rng = np.random.default_rng(seed)
    cutoffs = [CALENDAR.cutoff_before(days) for days in range(252, 0, -28)]
    offer_rows = [
        (28 * n + o, f"c{n}", starts_at, starts_at + pd.Timedelta(days=28))
        for n, starts_at in enumerate(cutoffs)
        for o in range(20)
    ]
    offers = pd.DataFrame(offer_rows, columns=["offer_key", "campaign_id", "starts_at", "ends_at"])
    rates = pd.DataFrame({"customer_key": np.arange(households), "response_rate": rng.beta(1, 4, households)})
    frame = rates.merge(offers.drop(columns=["campaign_id", "ends_at"]), how="cross").rename(
        columns={"starts_at": "as_of"}
    )
    frame["affinity_84d"] = rng.gamma(0.3, 2.0, len(frame))
    frame["popularity"], frame["price"] = 0.01, rng.choice([2.0, 20.0], len(frame))
    is_redeemed = rng.random(len(frame)) < 0.3 * frame["response_rate"] * np.minimum(frame["affinity_84d"], 3.0)
    redemptions = frame.loc[is_redeemed, ["customer_key", "offer_key", "as_of"]].rename(
        columns={"as_of": "redeemed_at"}
    )
    redemptions["redeemed_at"] += pd.Timedelta(days=7)
    return replace(TRAINING_DATA, redemptions=redemptions, offers=offers), frame


def get_task(name: str) -> Task:
    return all_tasks.get_task(name)


def test_an_event_based_task_is_evaluated_on_every_row_from_the_holdout_on() -> None:
    training_data, frame = mailings(200)
    trained = train.train(get_task("offers"), training_data, frame)
    assert trained.holdout == CALENDAR.cutoff_before(63)
    late_count = (frame["as_of"] >= CALENDAR.cutoff_before(63)).sum()
    assert trained.rows == {"trial": len(frame) - late_count, "holdout": late_count, "served": len(frame)}
    assert {trained.learner, *trained.baselines} == {"offers.Offers", "offers.AffinityRate"}
    assert not trained.fallback
    assert trained.metrics["map"] > 0.5


def test_redemptions_after_the_holdout_do_not_change_the_rows_of_the_holdout_model() -> None:
    training_data, frame = mailings(200)
    early_redemptions = training_data.redemptions[training_data.redemptions["redeemed_at"] < CALENDAR.cutoff_before(63)]
    task = get_task("offers")
    rows, label = train._training_rows(task, training_data, frame, CALENDAR.cutoff_before(63))
    blind_rows, blind_label = train._training_rows(
        task, replace(training_data, redemptions=early_redemptions), frame, CALENDAR.cutoff_before(63)
    )
    assert (rows["as_of"] < CALENDAR.cutoff_before(63)).all()
    pd.testing.assert_frame_equal(rows, blind_rows)
    np.testing.assert_array_equal(label, blind_label)


def test_a_shop_without_redemptions_is_served_affinity() -> None:
    training_data, frame = mailings(60)
    without_redemptions = replace(training_data, redemptions=training_data.redemptions.head(0))
    trained = train.train(get_task("offers"), without_redemptions, frame)
    assert trained.fallback
    assert trained.learner == "offers.AffinityRate"
    best = trained.model.score(frame).argmax()
    strength = frame["affinity_84d"] * frame["response_rate"]
    assert strength[best] > strength.quantile(0.999)


def category_purchases(customers: int, *, seed: int = 6) -> tuple[TrainingData, pd.DataFrame]:
    """All customers buy TEA about every 10 days and SALT every 30; rows of four cutoffs four weeks apart."""
    rng = np.random.default_rng(seed)
    bought = [
        (key, category, day)
        for key in range(customers)
        for category, gap in (("TEA", 10), ("SALT", 30))
        for day in np.unique(np.cumsum(rng.exponential(gap, 60)).astype(int))
        if day < 366
    ]
    days = pd.DataFrame(bought, columns=["customer_key", "category", "day"])
    days["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(days["day"], unit="D")
    cutoff_rows = [_category_rows(days, CALENDAR.cutoff_before(back)) for back in (84, 56, 28, 0)]
    return replace(TRAINING_DATA, category_days=days), pd.concat(cutoff_rows, ignore_index=True)


def _category_rows(days: pd.DataFrame, cutoff: datetime) -> pd.DataFrame:
    now = pd.Timestamp(cutoff).tz_convert("UTC").tz_localize(None)
    past = days[days["day"] < now].groupby(["customer_key", "category"])["day"].agg(["min", "max", "count"])
    columns = {
        "need_times": past["count"], "need_recency_days": (now - past["max"]).dt.days,
        "need_first_days": (now - past["min"]).dt.days,
    }  # fmt: skip
    frame = pd.DataFrame(columns).astype("float64").reset_index()
    return frame.assign(as_of=pd.Timestamp(cutoff).tz_convert("UTC"))


def test_restock_is_evaluated_two_weeks_ahead_beside_its_baselines() -> None:
    training_data, frame = category_purchases(300)
    trained = train.train(get_task("restock"), training_data, frame)
    assert trained.holdout == CALENDAR.cutoff_before(28)
    assert {trained.learner, *trained.baselines} == {"restock.Restock", "stocks.OwnRate", "stocks.PairRhythm"}
    metrics_by_learner = [trained.metrics, *trained.baselines.values()]
    assert all(each["auc"] > 0.65 for each in metrics_by_learner)
    assert all(abs(each["bias"]) < 0.05 for each in metrics_by_learner)


def test_a_category_bought_twice_or_long_ago_is_not_evaluated() -> None:
    rows = pd.DataFrame({"need_times": [2.0, 3.0, 3.0, 3.0], "need_recency_days": [5.0, 5.0, 121.0, 120.0]})
    label = pd.DataFrame({"within_14": [1.0, 1.0, 1.0, np.nan]})
    assert get_task("restock").evaluated_rows(TRAINING_DATA, rows, label).tolist() == [False, True, False, False]


def test_value_is_evaluated_over_its_horizon_or_a_third_of_the_history() -> None:
    assert get_task("value").holdout_days(TRAINING_DATA) == 90
    assert get_task("value").settings(replace(TRAINING_DATA, value_days=365)) == {"horizon_days": 366 // 3}


def test_a_shop_of_twelve_customers_gets_values_from_bg_nbd() -> None:
    rng = np.random.default_rng(8)
    days = pd.DataFrame([(key, int(day)) for key in range(12) for day in np.unique(rng.integers(0, 366, 20))],
                        columns=["customer_key", "day"])  # fmt: skip
    purchases = days.assign(day=pd.Timestamp("2024-01-01") + pd.to_timedelta(days["day"], unit="D"), spend=10.0)
    training_data = replace(TRAINING_DATA, purchases=purchases)
    frame = pd.concat(
        [_customer_rows(purchases, CALENDAR.cutoff_before(back)) for back in (180, 90, 0)], ignore_index=True
    )
    trained = train.train(get_task("value"), training_data, frame)
    assert trained.fallback
    assert trained.learner == "spending.BgNbdGammaGamma"
    last = frame[frame["as_of"] == CALENDAR.as_of]
    # Twenty purchases a year at 10 each, over 90 days.
    assert trained.model.score(last).mean() == pytest.approx(20 / 366 * 90 * 10, rel=0.35)


def _customer_rows(purchases: pd.DataFrame, cutoff: datetime) -> pd.DataFrame:
    now = pd.Timestamp(cutoff).tz_convert("UTC").tz_localize(None)
    past = purchases[purchases["day"] < now].groupby("customer_key")["day"].agg(["min", "max", "count"])
    columns = {
        "recency_days": (now - past["max"]).dt.days, "tenure_days": (now - past["min"]).dt.days,
        "purchase_days": past["count"], "span_days": (past["max"] - past["min"]).dt.days,
        "spend_total": 10.0 * past["count"],
    }  # fmt: skip
    frame = pd.DataFrame(columns).astype("float64").reset_index()
    return frame.assign(as_of=pd.Timestamp(cutoff).tz_convert("UTC"))


def test_training_data_without_campaigns_or_categories_has_no_outcomes() -> None:
    rows = pd.DataFrame(
        {"customer_key": [1], "as_of": [CALENDAR.cutoff_before(100)], "offer_key": [1], "category": ["TEA"]}
    )
    assert np.isnan(get_task("offers").label(TRAINING_DATA, rows, CALENDAR.complete_until)).all()
    assert get_task("restock").label(TRAINING_DATA, rows, CALENDAR.complete_until).to_numpy().tolist() == [
        [0.0, 0.0, 0.0]
    ]
    assert get_task("value").label(TRAINING_DATA, rows, CALENDAR.complete_until).to_numpy().tolist() == [[0.0, 90.0]]


def test_every_task_names_registered_learners() -> None:
    from models.registry import learners

    assert [task.name for task in all_tasks.TASKS] == ["recommender", "offers", "churn", "timing", "restock", "value"]
    for task in all_tasks.TASKS:
        assert {task.learner, *task.baselines} <= set(learners.LEARNERS)
        assert task.is_event_based == (task.expand == "offers")
