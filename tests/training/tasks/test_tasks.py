"""The newer questions, asked of a small shop: value, restock, and offers, whose rows lie at many moments."""

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
WORLD = TrainingData(CALENDAR, EMPTY, {}, 28)


def test_a_night_reports_where_the_places_of_lists_come_from() -> None:
    rows = pd.DataFrame({"customer_key": [1], "product_keys": [[10, 11]]})
    places = [("any", 1, 10, "again"), ("any", 2, 11, "again"), ("any", 3, 12, "new"), ("new", 1, 12, "popular")]
    ranked = pd.DataFrame(places, columns=["list", "rank", "product_key", "source"]).assign(customer_key=1)
    told = by("recommender").evaluate(WORLD, rows, pd.Series([[10, 12]]), ranked)
    shares = {name: share for name, share in told.items() if name.startswith("source_")}
    assert shares == {"source_again": pytest.approx(2 / 3), "source_new": pytest.approx(1 / 3), "source_popular": 0}


def mailings(households: int, *, seed: int = 5) -> tuple[TrainingData, pd.DataFrame]:
    """A campaign of 20 offers to everybody every four weeks; what somebody has affinity to is redeemed in a week."""
    chance = np.random.default_rng(seed)
    sent = [CALENDAR.cutoff_before(days) for days in range(252, 0, -28)]
    offers = [(28 * n + o, f"c{n}", at, at + pd.Timedelta(days=28)) for n, at in enumerate(sent) for o in range(20)]
    terms = pd.DataFrame(offers, columns=["offer_key", "campaign_id", "starts_at", "ends_at"])
    people = pd.DataFrame({"customer_key": np.arange(households), "response_rate": chance.beta(1, 4, households)})
    frame = people.merge(terms.drop(columns=["campaign_id", "ends_at"]), how="cross").rename(
        columns={"starts_at": "as_of"}
    )
    frame["affinity_84d"] = chance.gamma(0.3, 2.0, len(frame))
    frame["popularity"], frame["price"] = 0.01, chance.choice([2.0, 20.0], len(frame))
    taken = chance.random(len(frame)) < 0.3 * frame["response_rate"] * np.minimum(frame["affinity_84d"], 3.0)
    redemptions = frame.loc[taken, ["customer_key", "offer_key", "as_of"]].rename(columns={"as_of": "redeemed_at"})
    redemptions["redeemed_at"] += pd.Timedelta(days=7)
    return replace(WORLD, redemptions=redemptions, offers=terms), frame


def by(plan: str) -> Task:
    return all_tasks.get_task(plan)


def test_a_spread_plan_is_judged_on_every_row_from_the_holdout_on() -> None:
    known, frame = mailings(200)
    trained = train.train(by("offers"), known, frame)
    assert trained.holdout == CALENDAR.cutoff_before(63)
    late = (frame["as_of"] >= CALENDAR.cutoff_before(63)).sum()
    assert trained.rows == {"trial": len(frame) - late, "holdout": late, "served": len(frame)}
    assert {trained.learner, *trained.baselines} == {"offers.Offers", "offers.AffinityRate"}
    assert not trained.fallback
    assert trained.metrics["map"] > 0.5


def test_redemptions_after_the_holdout_teach_the_judged_twin_nothing() -> None:
    known, frame = mailings(200)
    early = known.redemptions[known.redemptions["redeemed_at"] < CALENDAR.cutoff_before(63)]
    plan = by("offers")
    rows, label = train._training_rows(plan, known, frame, CALENDAR.cutoff_before(63))
    blind_rows, blind = train._training_rows(plan, replace(known, redemptions=early), frame, CALENDAR.cutoff_before(63))
    assert (rows["as_of"] < CALENDAR.cutoff_before(63)).all()
    pd.testing.assert_frame_equal(rows, blind_rows)
    np.testing.assert_array_equal(label, blind)


def test_a_shop_that_never_saw_a_redemption_is_served_affinity() -> None:
    known, frame = mailings(60)
    nobody = replace(known, redemptions=known.redemptions.head(0))
    trained = train.train(by("offers"), nobody, frame)
    assert trained.fallback
    assert trained.learner == "offers.AffinityRate"
    best = trained.model.score(frame).argmax()
    strength = frame["affinity_84d"] * frame["response_rate"]
    assert strength[best] > strength.quantile(0.999)


def needs(customers: int, *, seed: int = 6) -> tuple[TrainingData, pd.DataFrame]:
    """Everybody buys TEA every 10 days or so and SALT every 30, seen at four moments four weeks apart."""
    chance = np.random.default_rng(seed)
    bought = [
        (key, category, day)
        for key in range(customers)
        for category, gap in (("TEA", 10), ("SALT", 30))
        for day in np.unique(np.cumsum(chance.exponential(gap, 60)).astype(int))
        if day < 366
    ]
    days = pd.DataFrame(bought, columns=["customer_key", "category", "day"])
    days["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(days["day"], unit="D")
    seen = [_seen(days, CALENDAR.cutoff_before(back)) for back in (84, 56, 28, 0)]
    return replace(WORLD, category_days=days), pd.concat(seen, ignore_index=True)


def _seen(days: pd.DataFrame, moment: datetime) -> pd.DataFrame:
    now = pd.Timestamp(moment).tz_convert("UTC").tz_localize(None)
    past = days[days["day"] < now].groupby(["customer_key", "category"])["day"].agg(["min", "max", "count"])
    columns = {
        "need_times": past["count"], "need_recency_days": (now - past["max"]).dt.days,
        "need_first_days": (now - past["min"]).dt.days,
    }  # fmt: skip
    frame = pd.DataFrame(columns).astype("float64").reset_index()
    return frame.assign(as_of=pd.Timestamp(moment).tz_convert("UTC"))


def test_needs_are_judged_two_weeks_ahead_beside_their_own_rate() -> None:
    known, frame = needs(300)
    trained = train.train(by("restock"), known, frame)
    assert trained.holdout == CALENDAR.cutoff_before(28)
    assert {trained.learner, *trained.baselines} == {"restock.Restock", "stocks.OwnRate", "stocks.PairRhythm"}
    figures = [trained.metrics, *trained.baselines.values()]
    assert all(each["auc"] > 0.65 for each in figures)
    assert all(abs(each["bias"]) < 0.05 for each in figures)


def test_what_was_bought_twice_or_long_ago_is_not_judged() -> None:
    rows = pd.DataFrame({"need_times": [2.0, 3.0, 3.0, 3.0], "need_recency_days": [5.0, 5.0, 121.0, 120.0]})
    label = pd.DataFrame({"within_14": [1.0, 1.0, 1.0, np.nan]})
    assert by("restock").evaluated_rows(WORLD, rows, label).tolist() == [False, True, False, False]


def test_value_is_judged_over_its_horizon_or_a_third_of_the_history() -> None:
    assert by("value").holdout_days(WORLD) == 90
    assert by("value").settings(replace(WORLD, value_days=365)) == {"horizon_days": 366 // 3}


def test_a_shop_of_twelve_is_worth_what_its_rhythm_says() -> None:
    chance = np.random.default_rng(8)
    days = pd.DataFrame([(key, int(day)) for key in range(12) for day in np.unique(chance.integers(0, 366, 20))],
                        columns=["customer_key", "day"])  # fmt: skip
    paid = days.assign(day=pd.Timestamp("2024-01-01") + pd.to_timedelta(days["day"], unit="D"), spend=10.0)
    known = replace(WORLD, purchases=paid)
    frame = pd.concat([_figures(paid, CALENDAR.cutoff_before(back)) for back in (180, 90, 0)], ignore_index=True)
    trained = train.train(by("value"), known, frame)
    assert trained.fallback
    assert trained.learner == "spending.BgNbdGammaGamma"
    last = frame[frame["as_of"] == CALENDAR.as_of]
    # Twenty visits a year at 10 each, over 90 days.
    assert trained.model.score(last).mean() == pytest.approx(20 / 366 * 90 * 10, rel=0.35)


def _figures(paid: pd.DataFrame, moment: datetime) -> pd.DataFrame:
    now = pd.Timestamp(moment).tz_convert("UTC").tz_localize(None)
    past = paid[paid["day"] < now].groupby("customer_key")["day"].agg(["min", "max", "count"])
    columns = {
        "recency_days": (now - past["max"]).dt.days, "tenure_days": (now - past["min"]).dt.days,
        "purchase_days": past["count"], "span_days": (past["max"] - past["min"]).dt.days,
        "spend_total": 10.0 * past["count"],
    }  # fmt: skip
    frame = pd.DataFrame(columns).astype("float64").reset_index()
    return frame.assign(as_of=pd.Timestamp(moment).tz_convert("UTC"))


def test_a_world_without_campaigns_or_categories_knows_of_no_outcome() -> None:
    rows = pd.DataFrame(
        {"customer_key": [1], "as_of": [CALENDAR.cutoff_before(100)], "offer_key": [1], "category": ["TEA"]}
    )
    assert np.isnan(by("offers").label(WORLD, rows, CALENDAR.complete_until)).all()
    assert by("restock").label(WORLD, rows, CALENDAR.complete_until).to_numpy().tolist() == [[0.0, 0.0, 0.0]]
    assert by("value").label(WORLD, rows, CALENDAR.complete_until).to_numpy().tolist() == [[0.0, 90.0]]


def test_every_question_names_learners_of_the_house() -> None:
    from models.registry import learners

    assert [plan.name for plan in all_tasks.TASKS] == ["recommender", "offers", "churn", "timing", "restock", "value"]
    for plan in all_tasks.TASKS:
        assert {plan.learner, *plan.baselines} <= set(learners.LEARNERS)
        assert plan.is_event_based == (plan.expand == "offers")
