"""One loop for every plan: whoever is best on days nobody saw is served, and everybody's figures are kept."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from training import calendar, train
from training.tasks import all_tasks
from training.tasks.task import Incomparable, TrainingData

CALENDAR = calendar.TrainingCalendar(date(2024, 1, 1), datetime(2025, 1, 1, tzinfo=UTC), "UTC")


def world(customers: int, *, churn_days: int = 28, seed: int = 3) -> tuple[TrainingData, pd.DataFrame]:
    """Customers who come after gaps that are exponential, as BG/NBD has them; and their rows at many moments."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, datetime]] = []
    for key in range(1, customers + 1):
        gap, day = rng.gamma(2, 6), rng.uniform(0, 60)
        while day < 366 and rng.random() > 0.02:
            rows.append((key, datetime(2024, 1, 1) + pd.Timedelta(days=int(day))))
            day += 1 + rng.exponential(gap)
    purchases = pd.DataFrame(rows, columns=["customer_key", "day"])
    known = TrainingData(CALENDAR, purchases, {}, churn_days)
    moments = calendar.training_cutoffs(CALENDAR, [28, 90])
    return known, pd.concat([_figures(purchases, moment) for moment in moments], ignore_index=True)


def _figures(purchases: pd.DataFrame, moment: datetime) -> pd.DataFrame:
    day = pd.Timestamp(moment).tz_convert("UTC").tz_localize(None)
    days = purchases[purchases["day"] < day].groupby("customer_key")["day"].agg(["min", "max", "count"])
    columns: dict[str, Any] = {
        "recency_days": (day - days["max"]).dt.days, "tenure_days": (day - days["min"]).dt.days,
        "purchase_days": days["count"], "span_days": (days["max"] - days["min"]).dt.days,
    }  # fmt: skip
    frame = pd.DataFrame(columns).astype("float64").reset_index()
    frame["gap_mean_days"] = frame["span_days"] / (frame["purchase_days"] - 1).replace(0, np.nan)
    frame = frame.assign(purchase_days_28d=1.0, basket_value_mean=10.0, gap_median_days=frame["gap_mean_days"])
    return frame.assign(as_of=pd.Timestamp(moment).tz_convert("UTC"))


def test_the_last_window_is_held_out_and_everybody_is_judged_on_it() -> None:
    known, frame = world(600)
    trained = train.train(all_tasks.get_task("churn"), known, frame)
    assert trained.holdout == CALENDAR.cutoff_before(28)
    assert trained.rows["trial"] + trained.rows["holdout"] < len(frame)
    assert {trained.learner, *trained.baselines} == {"churn.Churn", *all_tasks.get_task("churn").baselines}
    assert not trained.fallback


def test_a_baseline_that_is_ahead_is_served_and_the_learner_shown_beside_it() -> None:
    plan = all_tasks.get_task("churn")
    ahead = {"log_loss": 0.30}
    behind = {"log_loss": 0.31}
    contestants = [
        train.Candidate("baselines.BgNbdChurn", None, ahead, 0.0),  # type: ignore[arg-type]
        train.Candidate(plan.learner, None, behind, 0.0),  # type: ignore[arg-type]
    ]
    best, why = train._choose_candidate(plan, contestants, "")
    assert best.learner == "baselines.BgNbdChurn"
    assert "the baseline baselines.BgNbdChurn is served" in why
    trained = train.TrainingResult(plan, None, best.learner, best, contestants, None, False, why)  # type: ignore[arg-type]
    assert trained.baselines[plan.learner] == behind


def test_the_best_over_all_cutoffs_is_served_and_not_the_best_of_the_last() -> None:
    plan, before = all_tasks.get_task("churn"), CALENDAR.cutoff_before(56)

    def tried(learner: str, last: float, earlier: float) -> train.Candidate:
        past = {before: {"log_loss": earlier}}
        return train.Candidate(learner, None, {"log_loss": last}, 0.0, past)  # type: ignore[arg-type]

    steady, lucky = tried("baselines.BgNbdChurn", 0.30, 0.30), tried(plan.learner, 0.28, 0.34)
    best, why = train._choose_candidate(plan, [steady, lucky], "")
    assert best is steady
    assert "log_loss 0.3100 against 0.3000" in why
    assert "the mean of 2 cutoffs" in why


def test_an_earlier_cutoff_counts_where_everybody_could_learn_before_it() -> None:
    plan = all_tasks.get_task("churn")
    trained = train.train(plan, *world(600))
    assert {tuple(each.earlier_metrics) for each in trained.candidates} == {(CALENDAR.cutoff_before(56),)}
    young = calendar.TrainingCalendar(date(2024, 1, 1), datetime(2024, 3, 1, tzinfo=UTC), "UTC")
    known, frame = world(600)
    short = TrainingData(young, known.purchases[known.purchases["day"] < "2024-03-01"], {}, 28)
    frame = frame[frame["as_of"] <= young.as_of]
    now = _figures(known.purchases, young.as_of)
    then = _figures(known.purchases, young.cutoff_before(28))
    trained = train.train(plan, short, pd.concat([frame, then, now], ignore_index=True))
    assert all(not each.earlier_metrics for each in trained.candidates)


def test_a_tie_goes_to_the_learner() -> None:
    plan = all_tasks.get_task("churn")
    assert train.is_not_worse(plan, {"log_loss": 0.3010}, {"log_loss": 0.3000})
    assert not train.is_not_worse(plan, {"log_loss": 0.3100}, {"log_loss": 0.3000})


def test_too_few_to_judge_means_the_simplest_baseline_flagged() -> None:
    known, frame = world(12)
    trained = train.train(all_tasks.get_task("churn"), known, frame)
    assert trained.fallback
    assert trained.learner == all_tasks.get_task("churn").baselines[-1]
    assert np.isfinite(trained.model.score(frame)).all()


def test_what_happens_in_the_last_window_teaches_the_judged_twin_nothing() -> None:
    known, frame = world(600)
    early = known.purchases[known.purchases["day"] < pd.Timestamp("2024-12-04")]
    blind = TrainingData(CALENDAR, early, {}, 28)
    plan = all_tasks.get_task("churn")
    twin, other = (train.train(plan, each, frame).candidates[-1].model for each in (known, blind))
    np.testing.assert_array_equal(twin.score(frame), other.score(frame))


def test_models_of_different_horizons_are_not_compared() -> None:
    known, frame = world(600)
    trained = train.train(all_tasks.get_task("churn"), known, frame)
    other = TrainingData(CALENDAR, known.purchases, {}, 35)
    with pytest.raises(Incomparable, match="28 days, that of this run 35"):
        train.evaluate(all_tasks.get_task("churn"), other, frame, trained.model)


def contestant(learner: str, ndcg: float, distinct: float) -> train.Candidate:
    figures = {"ndcg_10": ndcg, "distinct_lists": distinct, "products_shown": 100 * distinct}
    return train.Candidate(learner, None, figures, 0.0)  # type: ignore[arg-type]


def test_the_same_list_for_everyone_is_not_served_however_good_it_is() -> None:
    plan = all_tasks.get_task("recommender")
    popular, frequent = contestant(plan.baselines[0], 0.9, 0.0), contestant(plan.baselines[1], 0.3, 1.0)
    best, why = train._choose_candidate(plan, [popular, frequent, contestant(plan.learner, 0.8, 0.1)], "")
    assert best is frequent
    assert "distinct_lists 0.1000 is less than 0.8 of 1.0000" in why
    best, _ = train._choose_candidate(plan, [popular, frequent, contestant(plan.learner, 0.4, 0.9)], "")
    assert best.learner == plan.learner


def test_a_challenger_that_tells_customers_apart_less_than_the_champion_did_is_named() -> None:
    plan = all_tasks.get_task("recommender")
    champion = {"distinct_lists": 0.9, "products_shown": 900.0}
    assert train.guardrail_violation(plan, {"distinct_lists": 0.8 * 0.9, "products_shown": 180.0}, champion) == ""
    assert train.guardrail_violation(plan, {"distinct_lists": 0.9, "products_shown": 100.0}, champion).startswith(
        "products_shown"
    )
    assert train.guardrail_violation(all_tasks.get_task("churn"), {}, {}) == "", (
        "only plans with a floor are held to one"
    )
